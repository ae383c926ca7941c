"""`/api/2.0/serving-endpoints`: list, get, delete. Apart from the models of bodies, which most of a
client's requests, and the first, do not bring.
"""

from starlette.requests import Request
from starlette.responses import Response

from servemu.access import visible
from servemu.responses import json_response
from servemu.route_optimized import render_query_info
from servemu.routes.asking import note_state, own_name
from servemu.routes.guard import level_of_caller
from servemu.schemas.foundation import render_foundation_endpoint
from servemu.schemas.rendering import render_endpoint, render_summary
from servemu.world import principal_of, world_of


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
