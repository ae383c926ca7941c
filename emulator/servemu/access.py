"""Who may do what to an endpoint: CAN_VIEW < CAN_QUERY < CAN_MANAGE (facts/control_plane §1.3)."""

from enum import IntEnum

from servemu.auth import Principal
from servemu.errors import (
    BadRequest,
    InvocationDenied,
    InvocationEndpointNotFound,
    PermissionDenied,
)
from servemu_state import permissions
from servemu_state.database import Database
from servemu_state.records import Endpoint, Holder, Standing

EVERYBODY = "users"
ADMINS = "admins"


class Level(IntEnum):
    """view = get and list; query = view + invoke; manage = all (DOC "Manage model serving…")."""

    CAN_VIEW = 1
    CAN_QUERY = 2
    CAN_MANAGE = 3


WORDS = {Level.CAN_VIEW: "View", Level.CAN_QUERY: "Query", Level.CAN_MANAGE: "Manage"}


def holder_of(principal: Principal) -> Holder:
    """Under which names the principal may have been given permissions."""
    kind = "service_principal_name" if principal.is_service_principal else "user_name"
    return Holder(kind, principal.user, EVERYBODY)


def level_of(principal: Principal, standing: Standing) -> Level | None:
    """The highest level; None: not even to see it. Admins and the creator manage, always."""
    if principal.is_admin or standing.creator == principal.user:
        return Level.CAN_MANAGE
    return max((Level[name] for name in standing.levels), default=None)


def require(principal: Principal, standing: Standing, needed: Level) -> Level:
    """The level the caller has. Raises `PermissionDenied` if it is less than what is needed.

    The text is LIVE for View, a GUESS for the others (facts/data_plane §5).
    """
    level = level_of(principal, standing)
    if level is None or level < needed:
        raise PermissionDenied(
            f"User does not have permission '{WORDS[needed]}' on Endpoint {standing.name}"
        )
    return level


def visible(db: Database, caller: Principal, all_: list[Endpoint]) -> list[tuple[Endpoint, Level]]:
    """The endpoints that the caller may see, with the caller's level on each."""
    if caller.is_admin:
        return [(endpoint, Level.CAN_MANAGE) for endpoint in all_]
    with db.read() as connection:
        given = permissions.levels(connection, caller.workspace, holder_of(caller))
    seen = []
    for endpoint in all_:
        levels = given.get(endpoint.id, ())
        level = level_of(caller, Standing(endpoint.id, endpoint.name, endpoint.creator, levels))
        if level is not None:
            seen.append((endpoint, level))
    return seen


def admit(db: Database, caller: Principal, endpoint: Endpoint) -> None:
    """Let a request through to the data plane; admins and creators cost no read.

    Raises `InvocationDenied`; `BadRequest` for a route-optimised endpoint on the workspace's URL,
    where those made after 2025-09-22 do not answer (DOC; status and text GUESS, facts/data_plane
    §1.2); `InvocationEndpointNotFound` for a token of another endpoint.
    """
    if endpoint.settings.get("route_optimized") and caller.endpoint_id is None:
        raise BadRequest(
            f"Endpoint {endpoint.name} is route-optimized. Query it at its endpoint_url, with an "
            "OAuth token for that endpoint."
        )
    if caller.endpoint_id is not None and (
        caller.endpoint_id != endpoint.id or not endpoint.settings.get("route_optimized")
    ):
        raise InvocationEndpointNotFound
    if caller.is_admin or caller.user == endpoint.creator:
        return
    with db.read() as connection:
        holder = holder_of(caller)
        standing = permissions.standing(connection, caller.workspace, endpoint.name, holder)
    level = None if standing is None else level_of(caller, standing)
    if level is None or level < Level.CAN_QUERY:
        raise InvocationDenied(endpoint.name)
