"""Fault rules and their ledger. Every function runs in the caller's transaction."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.exc import IntegrityError

from . import models
from .codec import decode, encode
from .errors import FaultExists
from .records import FaultRule

_TABLE = models.faults
_IN_WORKSPACE = _TABLE.c.workspace == bindparam("in_workspace")
_WITH_ID = _TABLE.c.id == bindparam("with_id")

_SELECT = select(*(column for column in _TABLE.c if not column.primary_key)).where(_IN_WORKSPACE)
_GET = _SELECT.where(_WITH_ID)
_LIST_ALL = _SELECT.order_by(_TABLE.c.position)
_INSERT = _TABLE.insert()
_SAVE = (
    _TABLE.update()
    .where(_IN_WORKSPACE, _WITH_ID)
    .values(
        matched=bindparam("matched"),
        fired=bindparam("fired"),
        last_request_id=bindparam("last_request_id"),
    )
)
_DELETE = _TABLE.delete().where(_IN_WORKSPACE, _WITH_ID)
_DELETE_ALL = _TABLE.delete().where(_IN_WORKSPACE)


def get(conn: Connection, workspace: str, id: str) -> FaultRule | None:
    """The rule with this id, or None."""
    row = conn.execute(_GET, {"in_workspace": workspace, "with_id": id}).first()
    return None if row is None else _fault(row)


def list_all(conn: Connection, workspace: str) -> list[FaultRule]:
    """The workspace's rules in the order of their creation, which is the order of matching."""
    return [_fault(row) for row in conn.execute(_LIST_ALL, {"in_workspace": workspace})]


def insert(conn: Connection, fault: FaultRule) -> None:
    """Stores a new rule after all others. Raises FaultExists when its id is taken."""
    row = {
        "workspace": fault.workspace,
        "id": fault.id,
        "rule": encode(fault.rule),
        "created_at": fault.created_at,
        "matched": fault.matched,
        "fired": fault.fired,
        "last_request_id": fault.last_request_id,
    }
    try:
        conn.execute(_INSERT, row)
    except IntegrityError as error:
        raise FaultExists(fault.workspace, fault.id) from error


def save(conn: Connection, fault: FaultRule) -> bool:
    """Writes the ledger of a rule; False when the rule is gone, as it may be by a request's end."""
    row = {
        "in_workspace": fault.workspace,
        "with_id": fault.id,
        "matched": fault.matched,
        "fired": fault.fired,
        "last_request_id": fault.last_request_id,
    }
    return conn.execute(_SAVE, row).rowcount > 0


def delete(conn: Connection, workspace: str, id: str) -> bool:
    """Forgets a rule; False when there was none."""
    return conn.execute(_DELETE, {"in_workspace": workspace, "with_id": id}).rowcount > 0


def delete_all(conn: Connection, workspace: str) -> None:
    """Forgets all rules of the workspace."""
    conn.execute(_DELETE_ALL, {"in_workspace": workspace})


def _fault(row: Sequence[Any]) -> FaultRule:
    workspace, id, rule, *ledger = row
    return FaultRule(workspace, id, decode(rule), *ledger)
