"""`/api/2.0/permissions/serving-endpoints/{id}` (facts/control_plane §1.3)."""

import re

from starlette.requests import Request
from starlette.responses import Response

from servemu import access
from servemu.access import Level
from servemu.errors import InvalidParameter, ResourceNotFound
from servemu.responses import json_response
from servemu.schemas.body import read_body
from servemu.schemas.permissions import (
    AccessControlList,
    creator_grant,
    render_levels,
    render_permissions,
)
from servemu.world import principal_of, world_of
from servemu_state import endpoints, permissions
from servemu_state.database import Connection
from servemu_state.records import Endpoint, Grant

ID = re.compile(r"[0-9a-fA-F]{32}")


async def get(request: Request) -> Response:
    with world_of(request).db.read() as connection:
        endpoint = _endpoint(connection, request, Level.CAN_MANAGE)
        grants = permissions.list_all(connection, endpoint.id)
    return json_response(render_permissions(endpoint, grants))


async def put(request: Request) -> Response:
    """These permissions and no others."""
    return await _change(request, replace=True)


async def patch(request: Request) -> Response:
    """These permissions as well; a principal that had one gets the new one instead."""
    return await _change(request, replace=False)


async def levels(request: Request) -> Response:
    """Who may see the endpoint may see which levels there are (GUESS)."""
    with world_of(request).db.read() as connection:
        _endpoint(connection, request, Level.CAN_VIEW)
    return json_response(render_levels())


async def _change(request: Request, *, replace: bool) -> Response:
    body = await read_body(request, AccessControlList)
    asked = [one.grant() for one in body.access_control_list]
    with world_of(request).db.write() as connection:
        endpoint = _endpoint(connection, request, Level.CAN_MANAGE)
        given = [grant for grant in asked if not _is_creators(grant, endpoint)]
        change = permissions.replace_all if replace else permissions.merge
        change(connection, endpoint.id, given)
        grants = permissions.list_all(connection, endpoint.id)
    return json_response(render_permissions(endpoint, grants))


def _is_creators(grant: Grant, endpoint: Endpoint) -> bool:
    creator = creator_grant(endpoint)
    return (grant.kind, grant.principal) == (creator.kind, creator.principal)


def _endpoint(connection: Connection, request: Request, level: Level) -> Endpoint:
    """The endpoint of the path.

    Raises `InvalidParameter` (real text, facts/control_plane §4), `ResourceNotFound` (text GUESS),
    `PermissionDenied`.
    """
    id: str = request.path_params["id"]
    if ID.fullmatch(id) is None:
        raise InvalidParameter(f"'{id}' is not a valid Inference Endpoint ID.")
    caller = principal_of(request)
    holder = access.holder_of(caller)
    standing = permissions.standing_by_id(connection, caller.workspace, id, holder)
    endpoint = endpoints.get_by_id(connection, caller.workspace, id)
    if standing is None or endpoint is None:
        raise ResourceNotFound(f"Endpoint with id '{id}' does not exist.")
    access.require(caller, standing, level)
    return endpoint
