"""`POST …/{name}/config:stop` and `config:start` (facts/control_plane §1.2, §3)."""

from starlette.requests import Request
from starlette.responses import Response

from servemu.errors import InvalidParameter
from servemu.lifecycle.kinds import is_external, is_provisioned, latest
from servemu.routes.asking import answered, own_name
from servemu.world import call_of, principal_of, world_of


async def stop(request: Request) -> Response:
    """Only custom models can be stopped (DOC "Manage model serving endpoints"; text GUESS)."""
    name = own_name(request)
    workspace, deployments = principal_of(request).workspace, world_of(request).deployments
    deployment = latest(deployments.get(workspace, name))
    for entity in () if deployment is None else deployment.entities:
        if is_provisioned(entity) or is_external(entity):
            raise InvalidParameter(
                f"Endpoint '{name}' cannot be stopped: only endpoints with custom models can."
            )
    return answered(request, deployments.stop(workspace, name))


async def start(request: Request) -> Response:
    """Under the name of an update for fault rules: the SDK has no method for it."""
    name = own_name(request)
    call = call_of(request, "serving-endpoints.update_config")
    return answered(request, world_of(request).deployments.start(call, name))
