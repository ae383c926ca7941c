"""Access control lists of endpoints. Every function runs in the caller's transaction.

A list goes with its endpoint: the foreign key cascades.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, and_, bindparam, or_, select

from . import models
from .codec import decode
from .generations import IN_WORKSPACE
from .records import Grant, Holder, Standing

_TABLE = models.permissions
_ENDPOINTS = models.endpoints
_OF_ENDPOINT = _TABLE.c.endpoint_id == bindparam("of_endpoint")
_OF_PRINCIPAL = and_(
    _TABLE.c.kind == bindparam("of_kind"), _TABLE.c.principal == bindparam("of_principal")
)
_GIVEN = or_(
    _OF_PRINCIPAL, and_(_TABLE.c.kind == "group_name", _TABLE.c.principal == bindparam("of_group"))
)

_LIST_ALL = (
    select(_TABLE.c.kind, _TABLE.c.principal, _TABLE.c.level)
    .where(_OF_ENDPOINT)
    .order_by(_TABLE.c.kind, _TABLE.c.principal)
)
_INSERT = _TABLE.insert()
_DELETE = _TABLE.delete().where(_OF_ENDPOINT, _OF_PRINCIPAL)
_DELETE_ALL = _TABLE.delete().where(_OF_ENDPOINT)
_STANDING = (
    select(
        _ENDPOINTS.c.id,
        _ENDPOINTS.c.name,
        _ENDPOINTS.c.creator,
        _ENDPOINTS.c.settings,
        _TABLE.c.level,
    )
    .select_from(
        _ENDPOINTS.outerjoin(_TABLE, and_(_TABLE.c.endpoint_id == _ENDPOINTS.c.id, _GIVEN))
    )
    .where(IN_WORKSPACE)
)
_BY_NAME = _STANDING.where(_ENDPOINTS.c.name == bindparam("named"))
_BY_ID = _STANDING.where(_ENDPOINTS.c.id == bindparam("with_id"))
_LEVELS = (
    select(_TABLE.c.endpoint_id, _TABLE.c.level)
    .join(_ENDPOINTS, _ENDPOINTS.c.id == _TABLE.c.endpoint_id)
    .where(IN_WORKSPACE, _GIVEN)
)


def list_all(conn: Connection, endpoint_id: str) -> list[Grant]:
    """What was given on the endpoint, by kind, then name."""
    return [Grant(*row) for row in conn.execute(_LIST_ALL, {"of_endpoint": endpoint_id})]


def replace_all(conn: Connection, endpoint_id: str, grants: Iterable[Grant]) -> None:
    """These grants and no others. Raises sqlalchemy's `IntegrityError` without the endpoint."""
    conn.execute(_DELETE_ALL, {"of_endpoint": endpoint_id})
    _insert(conn, endpoint_id, grants)


def merge(conn: Connection, endpoint_id: str, grants: Iterable[Grant]) -> None:
    """These grants instead of what the same principals had; others keep theirs."""
    grants = list(grants)
    for grant in grants:
        row = {"of_kind": grant.kind, "of_principal": grant.principal}
        conn.execute(_DELETE, {"of_endpoint": endpoint_id, **row})
    _insert(conn, endpoint_id, grants)


def standing(conn: Connection, workspace: str, name: str, holder: Holder) -> Standing | None:
    """Where the holder stands with the endpoint of this name, or None."""
    rows = conn.execute(_BY_NAME, {**_holder(holder), "in_workspace": workspace, "named": name})
    return _standing(rows.all())


def standing_by_id(conn: Connection, workspace: str, id: str, holder: Holder) -> Standing | None:
    """The same by the endpoint's id."""
    rows = conn.execute(_BY_ID, {**_holder(holder), "in_workspace": workspace, "with_id": id})
    return _standing(rows.all())


def levels(conn: Connection, workspace: str, holder: Holder) -> dict[str, tuple[str, ...]]:
    """All that the holder was given in the workspace, by endpoint id."""
    found: dict[str, tuple[str, ...]] = {}
    for id, level in conn.execute(_LEVELS, {**_holder(holder), "in_workspace": workspace}):
        found[id] = (*found.get(id, ()), level)
    return found


def _holder(holder: Holder) -> dict[str, str]:
    return {"of_kind": holder.kind, "of_principal": holder.principal, "of_group": holder.group}


def _standing(rows: Sequence[Any]) -> Standing | None:
    if not rows:
        return None
    id, name, creator, settings, _ = rows[0]
    given = tuple(level for *_, level in rows if level is not None)
    return Standing(id, name, creator, given, decode(settings))


def _insert(conn: Connection, endpoint_id: str, grants: Iterable[Grant]) -> None:
    rows = {
        (grant.kind, grant.principal): {
            "endpoint_id": endpoint_id,
            "kind": grant.kind,
            "principal": grant.principal,
            "level": grant.level,
        }
        for grant in grants
    }
    if rows:
        conn.execute(_INSERT, list(rows.values()))
