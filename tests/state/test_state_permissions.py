"""Grants come back as they were given, and go with their endpoint."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from servemu_state import endpoints, permissions, signing_keys
from servemu_state.database import Database
from servemu_state.records import Endpoint, Grant, Holder, Standing

MakeEndpoint = Callable[..., Endpoint]

ANN = Grant("user_name", "ann@example.com", "CAN_QUERY")
ROBOT = Grant("service_principal_name", "robot", "CAN_MANAGE")
EVERYBODY = Grant("group_name", "users", "CAN_VIEW")
HOLDER = Holder("user_name", "ann@example.com", "users")


@pytest.fixture
def llama(database: Database, make_endpoint: MakeEndpoint) -> Endpoint:
    endpoint = make_endpoint("llama")
    with database.write() as conn:
        endpoints.insert(conn, endpoint)
    return endpoint


def test_replace_leaves_only_the_new_grants(database: Database, llama: Endpoint) -> None:
    with database.write() as conn:
        permissions.replace_all(conn, llama.id, [ANN, EVERYBODY])
        assert permissions.list_all(conn, llama.id) == [EVERYBODY, ANN]
        permissions.replace_all(conn, llama.id, [ROBOT])
        assert permissions.list_all(conn, llama.id) == [ROBOT]
        permissions.replace_all(conn, llama.id, [])
        assert permissions.list_all(conn, llama.id) == []


def test_merge_changes_the_named_principals_only(database: Database, llama: Endpoint) -> None:
    view = replace(ANN, level="CAN_VIEW")
    with database.write() as conn:
        permissions.replace_all(conn, llama.id, [ANN, ROBOT])
        permissions.merge(conn, llama.id, [view, EVERYBODY])
        assert permissions.list_all(conn, llama.id) == [EVERYBODY, ROBOT, view]


def test_last_grant_of_a_principal_wins(database: Database, llama: Endpoint) -> None:
    last = replace(ANN, level="CAN_VIEW")
    with database.write() as conn:
        permissions.merge(conn, llama.id, [ANN, last])
        assert permissions.list_all(conn, llama.id) == [last]


def test_standing_holds_own_and_group_levels_and_nobody_elses(
    database: Database, llama: Endpoint
) -> None:
    with database.write() as conn:
        permissions.replace_all(conn, llama.id, [ANN, ROBOT, EVERYBODY])
        by_name = permissions.standing(conn, "default", "llama", HOLDER)
        by_id = permissions.standing_by_id(conn, "default", llama.id, HOLDER)
    assert by_name is not None
    assert replace(by_name, levels=()) == Standing(
        llama.id, "llama", llama.creator, (), llama.settings
    )
    assert set(by_name.levels) == {"CAN_QUERY", "CAN_VIEW"}
    assert by_id == by_name


def test_standing_without_grants_has_no_levels(database: Database, llama: Endpoint) -> None:
    with database.read() as conn:
        found = permissions.standing(conn, "default", "llama", HOLDER)
    assert found == Standing(llama.id, "llama", llama.creator, (), llama.settings)


def test_standing_ends_at_the_workspace(database: Database, llama: Endpoint) -> None:
    with database.read() as conn:
        assert permissions.standing(conn, "other", "llama", HOLDER) is None
        assert permissions.standing_by_id(conn, "other", llama.id, HOLDER) is None
        assert permissions.standing(conn, "default", "none", HOLDER) is None


def test_levels_are_those_of_one_workspace(
    database: Database, llama: Endpoint, make_endpoint: MakeEndpoint
) -> None:
    other = make_endpoint("elsewhere", workspace="other")
    unseen = make_endpoint("unseen")
    with database.write() as conn:
        endpoints.insert(conn, other)
        endpoints.insert(conn, unseen)
        permissions.replace_all(conn, llama.id, [ANN])
        permissions.replace_all(conn, other.id, [EVERYBODY])
        permissions.replace_all(conn, unseen.id, [ROBOT])
        assert permissions.levels(conn, "default", HOLDER) == {llama.id: ("CAN_QUERY",)}
        assert permissions.levels(conn, "other", HOLDER) == {other.id: ("CAN_VIEW",)}


def test_deleted_endpoint_takes_its_grants_along(database: Database, llama: Endpoint) -> None:
    with database.write() as conn:
        permissions.replace_all(conn, llama.id, [ANN])
        endpoints.delete(conn, llama.id)
        assert permissions.list_all(conn, llama.id) == []


def test_delete_all_takes_the_grants_of_its_workspace_only(
    database: Database, llama: Endpoint, make_endpoint: MakeEndpoint
) -> None:
    other = make_endpoint("elsewhere", workspace="other")
    with database.write() as conn:
        endpoints.insert(conn, other)
        for endpoint in (llama, other):
            permissions.replace_all(conn, endpoint.id, [ANN])
        endpoints.delete_all(conn, "default")
        assert permissions.list_all(conn, llama.id) == []
        assert permissions.list_all(conn, other.id) == [ANN]
        endpoints.delete_all(conn, "other")
        assert permissions.list_all(conn, other.id) == []


def test_first_secret_of_a_name_stays(database: Database) -> None:
    with database.read() as conn:
        assert signing_keys.get(conn, "oauth") is None
    with database.write() as conn:
        assert signing_keys.get_or_insert(conn, "oauth", "first") == "first"
        assert signing_keys.get_or_insert(conn, "oauth", "second") == "first"
        assert signing_keys.get_or_insert(conn, "other", "second") == "second"
        assert signing_keys.get(conn, "oauth") == "first"
