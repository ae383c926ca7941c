"""What the endpoint routes share: whose endpoint a request is about, and how it is answered."""

from starlette.requests import Request
from starlette.responses import Response

from servemu.errors import PermissionDenied
from servemu.responses import json_response
from servemu.schemas.rendering import is_ready, render_endpoint
from servemu.world import world_of
from servemu_state.records import Endpoint


def own_name(request: Request) -> str:
    """The endpoint's name, unless Databricks owns it (text GUESS after a real one)."""
    name: str = request.path_params["name"]
    if world_of(request).catalog.foundation_endpoint(name) is not None:
        raise PermissionDenied(f"User does not have permission 'Manage' on Endpoint {name}")
    return name


def answered(request: Request, endpoint: Endpoint) -> Response:
    """The endpoint as an answer; the journal notes what the client was shown."""
    note_state(request, endpoint)
    return json_response(render_endpoint(endpoint))


def note_state(request: Request, endpoint: Endpoint) -> None:
    """For the journal: `ready` and `config_update` as this answer shows them."""
    ready = "READY" if is_ready(endpoint) else "NOT_READY"
    request.scope["shown_state"] = f"{ready} {endpoint.config_update.value}"
