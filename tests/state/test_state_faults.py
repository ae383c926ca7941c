"""Fault rules and workspaces, as stored."""

from dataclasses import replace

import pytest

from servemu_state import faults, workspaces
from servemu_state.database import Database
from servemu_state.errors import FaultExists, WorkspaceGone
from servemu_state.records import FaultRule, Workspace

RULE = FaultRule("default", "no-gpu", {"effect": {"type": "no_capacity"}}, created_at=5.0)


def test_rules_are_listed_in_the_order_of_their_creation(database: Database) -> None:
    rules = [replace(RULE, id=id) for id in ("c", "a", "b")]
    with database.write() as conn:
        for rule in rules:
            faults.insert(conn, rule)
        faults.insert(conn, replace(RULE, workspace="other"))
    with database.read() as conn:
        assert faults.list_all(conn, "default") == rules
        assert faults.list_all(conn, "nobody") == []


def test_rule_id_is_unique_in_a_workspace(database: Database) -> None:
    with database.write() as conn:
        faults.insert(conn, RULE)
    with pytest.raises(FaultExists) as raised, database.write() as conn:
        faults.insert(conn, replace(RULE, rule={}))
    assert str(raised.value) == "Workspace 'default' already has a fault rule 'no-gpu'."
    with database.read() as conn:
        assert faults.get(conn, "default", "no-gpu") == RULE


def test_save_writes_the_ledger_only(database: Database) -> None:
    ledger = replace(RULE, matched=3, fired=2, last_request_id="r-1")
    with database.write() as conn:
        faults.insert(conn, RULE)
        assert faults.save(conn, replace(ledger, rule={"changed": True}))
    with database.read() as conn:
        assert faults.get(conn, "default", "no-gpu") == ledger


def test_save_of_a_missing_rule_changes_nothing(database: Database) -> None:
    with database.write() as conn:
        assert not faults.save(conn, RULE)
    with database.read() as conn:
        assert faults.list_all(conn, "default") == []


def test_delete_tells_whether_there_was_a_rule(database: Database) -> None:
    with database.write() as conn:
        faults.insert(conn, RULE)
        assert not faults.delete(conn, "other", "no-gpu")
        assert faults.delete(conn, "default", "no-gpu")
        assert not faults.delete(conn, "default", "no-gpu")
        assert faults.get(conn, "default", "no-gpu") is None


def test_delete_all_spares_other_workspaces(database: Database) -> None:
    other = replace(RULE, workspace="other")
    with database.write() as conn:
        faults.insert(conn, RULE)
        faults.insert(conn, other)
        faults.delete_all(conn, "default")
        assert faults.list_all(conn, "default") == []
        assert faults.list_all(conn, "other") == [other]


def test_workspace_is_inserted_once(database: Database) -> None:
    first = Workspace("default", created_at=1.0, clock_offset=2700.0)
    with database.write() as conn:
        assert workspaces.insert_if_absent(conn, first)
        assert not workspaces.insert_if_absent(conn, Workspace("default", created_at=9.0))
    with database.read() as conn:
        assert workspaces.get(conn, "default") == first
        assert workspaces.get(conn, "other") is None


def test_workspace_clock_is_saved(database: Database) -> None:
    older, newer = Workspace("b", created_at=1.0), Workspace("a", created_at=2.0)
    with database.write() as conn:
        workspaces.insert_if_absent(conn, newer)
        workspaces.insert_if_absent(conn, older)
        workspaces.save(conn, replace(older, clock_offset=60.5))
    with database.read() as conn:
        assert workspaces.list_all(conn) == [replace(older, clock_offset=60.5), newer]


def test_save_of_a_missing_workspace_raises(database: Database) -> None:
    with pytest.raises(WorkspaceGone), database.write() as conn:
        workspaces.save(conn, Workspace("default", created_at=1.0))
