"""Scripted replies and how often each was used. Functions run in the caller's transaction."""

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.exc import IntegrityError

from . import models
from .codec import decode, encode
from .errors import ReplyExists
from .records import ScriptedReply

_TABLE = models.replies
_IN_WORKSPACE = _TABLE.c.workspace == bindparam("in_workspace")
_WITH_ID = _TABLE.c.id == bindparam("with_id")

_LIST_ALL = (
    select(*(column for column in _TABLE.c if not column.primary_key))
    .where(_IN_WORKSPACE)
    .order_by(_TABLE.c.position)
)
_INSERT = _TABLE.insert()
_SAVE = _TABLE.update().where(_IN_WORKSPACE, _WITH_ID).values(used=bindparam("used"))
_DELETE = _TABLE.delete().where(_IN_WORKSPACE, _WITH_ID)
_DELETE_ALL = _TABLE.delete().where(_IN_WORKSPACE)


def list_all(conn: Connection, workspace: str) -> list[ScriptedReply]:
    """The workspace's replies in the order of their creation, which is the order of matching."""
    rows = conn.execute(_LIST_ALL, {"in_workspace": workspace})
    return [ScriptedReply(of, id, decode(reply), *rest) for of, id, reply, *rest in rows]


def insert(conn: Connection, reply: ScriptedReply) -> None:
    """Stores a new reply after all others. Raises ReplyExists when its id is taken."""
    row = {
        "workspace": reply.workspace,
        "id": reply.id,
        "reply": encode(reply.reply),
        "created_at": reply.created_at,
        "used": reply.used,
    }
    try:
        conn.execute(_INSERT, row)
    except IntegrityError as error:
        raise ReplyExists(reply.workspace, reply.id) from error


def save(conn: Connection, reply: ScriptedReply) -> bool:
    """Writes how often a reply was used; False when it is gone."""
    row = {"in_workspace": reply.workspace, "with_id": reply.id, "used": reply.used}
    return conn.execute(_SAVE, row).rowcount > 0


def delete(conn: Connection, workspace: str, id: str) -> bool:
    """Forgets a reply; False when there was none."""
    return conn.execute(_DELETE, {"in_workspace": workspace, "with_id": id}).rowcount > 0


def delete_all(conn: Connection, workspace: str) -> None:
    """Forgets all replies of the workspace."""
    conn.execute(_DELETE_ALL, {"in_workspace": workspace})
