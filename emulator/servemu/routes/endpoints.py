"""`/api/2.0/serving-endpoints`: create, list, get, delete, update config, tags."""

from starlette.requests import Request
from starlette.responses import Response

from servemu.access import visible
from servemu.lifecycle.configs import check_name, draft_config, draft_update
from servemu.responses import json_response
from servemu.route_optimized import check_config, render_query_info
from servemu.routes.asking import answered, drafting_of, new_endpoint, note_state, own_name
from servemu.routes.guard import level_of_caller
from servemu.schemas.body import read_body
from servemu.schemas.endpoints import ConfigInput, CreateEndpoint, PatchTags
from servemu.schemas.foundation import render_foundation_endpoint
from servemu.schemas.rendering import render_endpoint, render_summary, render_tags
from servemu.world import call_of, principal_of, world_of


async def create(request: Request) -> Response:
    """Answers at once with the pending config; the deployment goes on behind it."""
    world, body = world_of(request), await read_body(request, CreateEndpoint)
    check_name(body.name)
    drafting = drafting_of(request, body.name)
    config = None if body.config is None else draft_config(body.config, drafting)
    if config is not None and body.route_optimized:
        check_config(config)
    endpoint = new_endpoint(request, body, config)
    call = call_of(request, "serving-endpoints.create")
    return answered(request, world.deployments.create(call, endpoint, config))


async def list_all(request: Request) -> Response:
    """The pay-per-token endpoints of the workspace come first, as in the UI."""
    world, caller = world_of(request), principal_of(request)
    foundation = [render_foundation_endpoint(e) for e in world.catalog.foundation_endpoints]
    own = visible(world.db, caller, world.deployments.list_all(caller.workspace))
    return json_response({"endpoints": foundation + [render_summary(e, v.name) for e, v in own]})


async def get(request: Request) -> Response:
    world, name = world_of(request), request.path_params["name"]
    provided = world.catalog.foundation_endpoint(name)
    if provided is not None:
        return json_response(render_foundation_endpoint(provided))
    endpoint = world.deployments.get(principal_of(request).workspace, name)
    note_state(request, endpoint)
    body = render_endpoint(endpoint, level_of_caller(request).name)
    if endpoint.settings.get("route_optimized"):
        body |= render_query_info(endpoint, str(request.base_url))
    return json_response(body)


async def delete(request: Request) -> Response:
    """`{}`: MLflow parses the answer, the SDK takes either (facts/control_plane §1.1)."""
    world, name = world_of(request), own_name(request)
    endpoint = world.deployments.delete(principal_of(request).workspace, name)
    world.router.forget(endpoint)
    world.meter.forget(endpoint.workspace, endpoint.name)
    return json_response({})


async def update_config(request: Request) -> Response:
    world, name = world_of(request), own_name(request)
    body = await read_body(request, ConfigInput)
    endpoint = world.deployments.get(principal_of(request).workspace, name)
    config = draft_update(body, endpoint, drafting_of(request, name, is_update=True))
    if endpoint.settings.get("route_optimized"):
        check_config(config)
    call = call_of(request, "serving-endpoints.update_config")
    return answered(request, world.deployments.update_config(call, name, config))


async def patch_tags(request: Request) -> Response:
    """The tags as they are now; deletes go before adds."""
    name, body = own_name(request), await read_body(request, PatchTags)
    endpoint = world_of(request).deployments.patch_tags(
        principal_of(request).workspace,
        name,
        add={tag.key: tag.value for tag in body.add_tags},
        drop=frozenset(body.delete_tags),
    )
    return json_response({"tags": render_tags(endpoint)})
