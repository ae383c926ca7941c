"""Scripted replies, as stored."""

from dataclasses import replace

import pytest

from servemu_state import replies
from servemu_state.database import Database
from servemu_state.errors import ReplyExists
from servemu_state.records import ScriptedReply

REPLY = ScriptedReply("default", "hello", {"text": "Hi.", "times": 2}, created_at=5.0)


def test_replies_are_listed_in_the_order_of_their_creation(database: Database) -> None:
    stored = [replace(REPLY, id=id) for id in ("c", "a", "b")]
    with database.write() as conn:
        for reply in [*stored, replace(REPLY, workspace="other")]:
            replies.insert(conn, reply)
    with database.read() as conn:
        assert replies.list_all(conn, "default") == stored


def test_reply_id_is_unique_in_a_workspace(database: Database) -> None:
    with database.write() as conn:
        replies.insert(conn, REPLY)
    with pytest.raises(ReplyExists) as raised, database.write() as conn:
        replies.insert(conn, replace(REPLY, reply={}))
    assert str(raised.value) == "Workspace 'default' already has a scripted reply 'hello'."


def test_use_of_a_reply_is_saved_unless_it_is_gone(database: Database) -> None:
    with database.write() as conn:
        assert not replies.save(conn, REPLY)
        replies.insert(conn, REPLY)
        assert replies.save(conn, replace(REPLY, used=2, reply={"changed": True}))
        assert replies.list_all(conn, "default") == [replace(REPLY, used=2)]


def test_deleting_spares_other_workspaces(database: Database) -> None:
    other = replace(REPLY, workspace="other")
    with database.write() as conn:
        replies.insert(conn, REPLY)
        replies.insert(conn, other)
        assert replies.delete(conn, "default", "hello")
        assert not replies.delete(conn, "default", "hello")
        replies.insert(conn, REPLY)
        replies.delete_all(conn, "default")
        assert replies.list_all(conn, "default") == []
        assert replies.list_all(conn, "other") == [other]
