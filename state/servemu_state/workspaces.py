"""Workspaces. Every function runs in the caller's transaction."""

from sqlalchemy import Connection, bindparam, select

from . import models
from .errors import WorkspaceGone
from .records import Workspace

_TABLE = models.workspaces
_SELECT = select(_TABLE.c.name, _TABLE.c.created_at, _TABLE.c.clock_offset, _TABLE.c.generation)
_GET = _SELECT.where(_TABLE.c.name == bindparam("named"))
_LIST_ALL = _SELECT.order_by(_TABLE.c.created_at, _TABLE.c.name)
_INSERT = _TABLE.insert()
_UPDATE = _TABLE.update().where(_TABLE.c.name == bindparam("named"))


def get(conn: Connection, name: str) -> Workspace | None:
    """The workspace of this name, or None."""
    row = conn.execute(_GET, {"named": name}).first()
    return None if row is None else Workspace(*row)


def list_all(conn: Connection) -> list[Workspace]:
    """All workspaces, by creation, then name."""
    return [Workspace(*row) for row in conn.execute(_LIST_ALL)]


def insert_if_absent(conn: Connection, workspace: Workspace) -> bool:
    """Stores the workspace; False, and nothing changed, when its name is there already."""
    # Two statements, since "insert or ignore" is spelled differently by every database.
    if get(conn, workspace.name) is not None:
        return False
    conn.execute(_INSERT, _columns(workspace))
    return True


def save(conn: Connection, workspace: Workspace) -> None:
    """Replaces the workspace. Raises WorkspaceGone when it is not there."""
    updated = conn.execute(_UPDATE, {**_columns(workspace), "named": workspace.name})
    if updated.rowcount == 0:
        raise WorkspaceGone(workspace.name)


def _columns(workspace: Workspace) -> dict[str, object]:
    return {
        "name": workspace.name,
        "clock_offset": workspace.clock_offset,
        "created_at": workspace.created_at,
        "generation": workspace.generation,
    }
