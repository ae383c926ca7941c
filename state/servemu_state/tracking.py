"""MLflow's experiments, runs and logged models, as JSON documents. In the caller's transaction."""

from typing import Any

from sqlalchemy import Connection, bindparam, select

from . import models
from .codec import decode, encode
from .records import Tracked

_TABLE = models.tracked
_IN_WORKSPACE = _TABLE.c.workspace == bindparam("in_workspace")
_OF_KIND = _TABLE.c.kind == bindparam("of_kind")
_WITH_ID = _TABLE.c.id == bindparam("with_id")
_ROW = (_TABLE.c.workspace, _TABLE.c.kind, _TABLE.c.id, _TABLE.c.parent, _TABLE.c.document)

_GET = select(*_ROW).where(_IN_WORKSPACE, _OF_KIND, _WITH_ID)
_LIST = select(*_ROW).where(_IN_WORKSPACE, _OF_KIND).order_by(_TABLE.c.position.desc())
_INSERT = _TABLE.insert()
_SAVE = _TABLE.update().where(_IN_WORKSPACE, _OF_KIND, _WITH_ID)
_DELETE_ALL = _TABLE.delete().where(_IN_WORKSPACE)


def get(conn: Connection, workspace: str, kind: str, id: str) -> Tracked | None:
    """The experiment, run or logged model with this id, or None."""
    bound = {"in_workspace": workspace, "of_kind": kind, "with_id": id}
    row = conn.execute(_GET, bound).first()
    return None if row is None else _tracked(tuple(row))


def list_all(conn: Connection, workspace: str, kind: str) -> list[Tracked]:
    """All of the kind, newest first."""
    rows = conn.execute(_LIST, {"in_workspace": workspace, "of_kind": kind})
    return [_tracked(tuple(row)) for row in rows]


def insert(conn: Connection, tracked: Tracked) -> None:
    """Stores a new one; its id is the caller's to choose."""
    conn.execute(
        _INSERT,
        {
            "workspace": tracked.workspace,
            "kind": tracked.kind,
            "id": tracked.id,
            "parent": tracked.parent,
            "document": encode(tracked.document),
        },
    )


def save(conn: Connection, tracked: Tracked) -> None:
    """Its document as it is now."""
    bound = {"in_workspace": tracked.workspace, "of_kind": tracked.kind, "with_id": tracked.id}
    conn.execute(_SAVE, {**bound, "document": encode(tracked.document)})


def delete_all(conn: Connection, workspace: str) -> None:
    """Everything of the workspace."""
    conn.execute(_DELETE_ALL, {"in_workspace": workspace})


def _tracked(row: tuple[Any, ...]) -> Tracked:
    workspace, kind, id, parent, document = row
    return Tracked(workspace, kind, id, parent, decode(document))
