"""Named states of a workspace, as JSON text. Every function runs in the caller's transaction."""

from sqlalchemy import Connection, bindparam, select

from . import models
from .codec import decode, encode
from .records import Snapshot

_TABLE = models.snapshots
_IN_WORKSPACE = _TABLE.c.workspace == bindparam("in_workspace")
_NAMED = _TABLE.c.name == bindparam("named")
_SELECT = select(_TABLE).where(_IN_WORKSPACE)
_GET = _SELECT.where(_NAMED)
_LIST_ALL = _SELECT.order_by(_TABLE.c.name)
_INSERT = _TABLE.insert()
_DELETE = _TABLE.delete().where(_IN_WORKSPACE, _NAMED)


def get(conn: Connection, workspace: str, name: str) -> Snapshot | None:
    """The snapshot of this name, or None."""
    row = conn.execute(_GET, {"in_workspace": workspace, "named": name}).first()
    return None if row is None else Snapshot(row.workspace, row.name, decode(row.document))


def list_all(conn: Connection, workspace: str) -> list[Snapshot]:
    """The workspace's snapshots, by name."""
    rows = conn.execute(_LIST_ALL, {"in_workspace": workspace})
    return [Snapshot(row.workspace, row.name, decode(row.document)) for row in rows]


def save(conn: Connection, snapshot: Snapshot) -> None:
    """Stores the snapshot, in place of one of its name."""
    delete(conn, snapshot.workspace, snapshot.name)
    row = {
        "workspace": snapshot.workspace,
        "name": snapshot.name,
        "document": encode(snapshot.document),
    }
    conn.execute(_INSERT, row)


def delete(conn: Connection, workspace: str, name: str) -> bool:
    """Forgets a snapshot; False when there was none."""
    return conn.execute(_DELETE, {"in_workspace": workspace, "named": name}).rowcount > 0
