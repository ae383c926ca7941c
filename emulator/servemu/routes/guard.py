"""Permissions that routes ask for: wraps the table of routes, so that none can be forgotten."""

from collections.abc import Awaitable, Callable
from functools import wraps

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from servemu import access
from servemu.access import Level
from servemu.world import principal_of, world_of
from servemu_state import permissions

API = "/api/2.0/serving-endpoints/"
LOGS = ("/logs", "/build-logs")

View = Callable[[Request], Awaitable[Response]]


def needed(route: Route) -> Level | None:
    """To read takes CAN_VIEW, to change or to read logs CAN_MANAGE (DOC, facts/control_plane §1.3).

    None: the route is not of the control plane, or not of an endpoint.
    """
    if not route.path.startswith(API) or "{name}" not in route.path:
        return None
    reads = (route.methods or set()) <= {"GET", "HEAD"} and not route.path.endswith(LOGS)
    return Level.CAN_VIEW if reads else Level.CAN_MANAGE


def guard(route: Route) -> Route:
    """The route, behind a check of the caller's permission on the endpoint that its path names."""
    level = needed(route)
    if level is None:
        return route
    view: View = route.endpoint

    @wraps(view)
    async def guarded(request: Request) -> Response:
        request.scope["permission_level"] = check(request, request.path_params["name"], level)
        return await view(request)

    return Route(route.path, guarded, methods=sorted(route.methods or ()), name=route.name)


def check(request: Request, name: str, level: Level) -> Level:
    """The caller's level on the endpoint; one read, none for admins. Raises `PermissionDenied`.

    What is not there is not checked: the route answers its 404.
    """
    caller = principal_of(request)
    if caller.is_admin:
        return Level.CAN_MANAGE
    with world_of(request).db.read() as connection:
        holder = access.holder_of(caller)
        standing = permissions.standing(connection, caller.workspace, name, holder)
    return level if standing is None else access.require(caller, standing, level)


def level_of_caller(request: Request) -> Level:
    """What `guard` found."""
    level: Level = request.scope["permission_level"]
    return level
