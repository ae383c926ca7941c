"""What provisioned throughput adds to the endpoint routes: `/pt`, the model optimization info."""

from starlette.requests import Request
from starlette.responses import Response

from servemu.catalog import optimization_info
from servemu.lifecycle.configs import check_name, draft_config, draft_update
from servemu.responses import json_response
from servemu.routes.asking import answered, own_name
from servemu.routes.drafting import drafting_of, new_endpoint
from servemu.schemas.body import read_body
from servemu.schemas.endpoints import CreateEndpoint
from servemu.schemas.provisioned_throughput import CreatePtEndpoint, UpdatePtConfig
from servemu.world import call_of, principal_of, world_of


async def get_model_optimization_info(request: Request) -> Response:
    """Is it eligible, and in which steps is it sized (facts/provisioned_throughput §1)."""
    name, version = request.path_params["model"], request.path_params["version"]
    workspace = principal_of(request).workspace
    model = world_of(request).lookup.find(workspace, name, version)
    why = {} if model.refusal is None else {"X-Emulator-Why": model.refusal}
    return json_response(optimization_info(model), headers=why)


async def create(request: Request) -> Response:
    """`POST …/pt`. For fault rules it is a `create`, as on the older route."""
    body = await read_body(request, CreatePtEndpoint)
    check_name(body.name)
    config = draft_config(body.config.as_config(), drafting_of(request, body.name, by_units=True))
    given = body.model_dump(exclude={"config"}, exclude_none=True)
    endpoint = new_endpoint(request, CreateEndpoint.model_validate(given), config)
    call = call_of(request, "serving-endpoints.create_provisioned_throughput_endpoint")
    deployments = world_of(request).deployments
    return answered(request, deployments.create(call, endpoint, config))


async def update_config(request: Request) -> Response:
    """`PUT …/pt/{name}/config`: "updates are instantaneous" (databricks-sdk).

    That holds here for more or fewer units of the same models; a new model must come up first
    (GUESS).
    """
    name, body = own_name(request), await read_body(request, UpdatePtConfig)
    deployments = world_of(request).deployments
    endpoint = deployments.get(principal_of(request).workspace, name)
    drafting = drafting_of(request, name, by_units=True, is_update=True)
    config = draft_update(body.config.as_config(), endpoint, drafting)
    call = call_of(request, "serving-endpoints.update_provisioned_throughput_endpoint_config")
    return answered(request, deployments.update_config(call, name, config, at_once=True))
