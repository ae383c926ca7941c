"""`/api/2.0/serving-endpoints`: create, update config, tags."""

from starlette.requests import Request
from starlette.responses import Response

from servemu.lifecycle.configs import check_name, draft_config, draft_update
from servemu.responses import json_response
from servemu.route_optimized import check_config
from servemu.routes.asking import answered, own_name
from servemu.routes.drafting import drafting_of, new_endpoint
from servemu.schemas.body import read_body
from servemu.schemas.endpoints import ConfigInput, CreateEndpoint, PatchTags
from servemu.schemas.rendering import render_tags
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
