"""Endpoints and their history, as stored."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from servemu_state import endpoints, events
from servemu_state.database import Database
from servemu_state.errors import EndpointExists, EndpointGone
from servemu_state.records import Deployment, Endpoint, Event

MakeEndpoint = Callable[..., Endpoint]


def test_endpoint_is_read_back_as_it_was_written(
    database: Database, make_endpoint: MakeEndpoint
) -> None:
    endpoint = make_endpoint("llama")
    with database.write() as conn:
        endpoints.insert(conn, endpoint)
    with database.read() as conn:
        assert endpoints.get(conn, "default", "llama") == endpoint
        assert endpoints.get_by_id(conn, "default", endpoint.id) == endpoint
        assert endpoints.list_all(conn, "default") == [endpoint]


@pytest.mark.parametrize(
    ("active", "pending"), [(True, True), (True, False), (False, True), (False, False)]
)
def test_each_deployment_may_be_absent(
    database: Database, make_endpoint: MakeEndpoint, active: bool, pending: bool
) -> None:
    full = make_endpoint("llama")
    endpoint = replace(
        full, active=full.active if active else None, pending=full.pending if pending else None
    )
    with database.write() as conn:
        endpoints.insert(conn, full)
        endpoints.save(conn, endpoint)
    with database.read() as conn:
        assert endpoints.get(conn, "default", "llama") == endpoint


def test_absent_endpoint_is_none(database: Database, make_endpoint: MakeEndpoint) -> None:
    with database.write() as conn:
        endpoints.insert(conn, make_endpoint("llama"))
    with database.read() as conn:
        assert endpoints.get(conn, "default", "gte") is None
        assert endpoints.get(conn, "other", "llama") is None
        assert endpoints.get_by_id(conn, "other", make_endpoint("llama").id) is None


def test_name_is_unique_in_a_workspace(database: Database, make_endpoint: MakeEndpoint) -> None:
    first = make_endpoint("llama")
    again = make_endpoint("llama", id="f" * 32)
    with pytest.raises(EndpointExists) as raised, database.write() as conn:
        endpoints.insert(conn, first)
        endpoints.insert(conn, again)
    assert str(raised.value) == "Workspace 'default' already has an endpoint named 'llama'."
    with database.read() as conn:
        assert endpoints.list_all(conn, "default") == []


def test_the_same_name_lives_in_two_workspaces(
    database: Database, make_endpoint: MakeEndpoint
) -> None:
    here = make_endpoint("llama")
    there = make_endpoint("llama", id="f" * 32, workspace="other")
    with database.write() as conn:
        endpoints.insert(conn, here)
        endpoints.insert(conn, there)
    with database.read() as conn:
        assert endpoints.list_all(conn, "default") == [here]
        assert endpoints.list_all(conn, "other") == [there]


def test_list_is_by_creation_then_name(database: Database, make_endpoint: MakeEndpoint) -> None:
    with database.write() as conn:
        for name, created_at in [("c", 2.0), ("b", 2.0), ("a", 3.0), ("d", 1.0)]:
            endpoints.insert(conn, make_endpoint(name, created_at=created_at))
    with database.read() as conn:
        assert [e.name for e in endpoints.list_all(conn, "default")] == ["d", "b", "c", "a"]


def test_endpoints_of_all_workspaces_that_are_due_are_listed(
    database: Database, make_endpoint: MakeEndpoint, deployment: Deployment
) -> None:
    settled = replace(deployment, due_at=None)
    made = [
        make_endpoint("updates", active=None),
        make_endpoint("idles", active=deployment, pending=None),
        make_endpoint("both", active=deployment),
        make_endpoint("failed", pending=settled),
        make_endpoint("bare", active=None, pending=None),
        make_endpoint("there", workspace="other"),
    ]
    with database.write() as conn:
        for endpoint in made:
            endpoints.insert(conn, endpoint)
    with database.read() as conn:
        found = endpoints.list_due(conn)
    assert [(e.workspace, e.name) for e in found] == [
        ("default", "both"),
        ("default", "idles"),
        ("default", "updates"),
        ("other", "there"),
    ]


def test_save_of_a_missing_endpoint_raises(database: Database, make_endpoint: MakeEndpoint) -> None:
    endpoint = make_endpoint("llama")
    with pytest.raises(EndpointGone) as raised, database.write() as conn:
        endpoints.save(conn, endpoint)
    assert str(raised.value) == f"No endpoint has the id {endpoint.id!r}."
    with database.read() as conn:
        assert conn.exec_driver_sql("SELECT count(*) FROM deployments").scalar_one() == 0


def test_save_to_a_taken_name_raises(database: Database, make_endpoint: MakeEndpoint) -> None:
    llama, gte = make_endpoint("llama"), make_endpoint("gte")
    with database.write() as conn:
        endpoints.insert(conn, llama)
        endpoints.insert(conn, gte)
    with pytest.raises(EndpointExists), database.write() as conn:
        endpoints.save(conn, replace(gte, name="llama"))
    with database.read() as conn:
        assert endpoints.get(conn, "default", "gte") == gte


@pytest.mark.parametrize("forget", ["one", "all"])
def test_delete_takes_deployments_and_events_along(
    database: Database, make_endpoint: MakeEndpoint, forget: str
) -> None:
    llama, other = make_endpoint("llama"), make_endpoint("gte", workspace="other")
    with database.write() as conn:
        for endpoint in (llama, other):
            endpoints.insert(conn, endpoint)
            events.append(conn, Event(endpoint.id, 1.0, "DEPLOYMENT", "INFO", "began"))
    with database.write() as conn:
        if forget == "one":
            endpoints.delete(conn, llama.id)
        else:
            endpoints.delete_all(conn, "default")
    with database.read() as conn:
        assert endpoints.get(conn, "default", "llama") is None
        assert events.list_newest(conn, llama.id) == []
        assert endpoints.get(conn, "other", "gte") == other
        assert len(events.list_newest(conn, other.id)) == 1
        assert conn.exec_driver_sql("SELECT count(*) FROM deployments").scalar_one() == 2


def test_delete_all_of_the_only_workspace_leaves_nothing(
    database: Database, make_endpoint: MakeEndpoint
) -> None:
    endpoint = make_endpoint("llama")
    with database.write() as conn:
        endpoints.insert(conn, endpoint)
        events.append(conn, Event(endpoint.id, 1.0, "DEPLOYMENT", "INFO", "began"))
        endpoints.delete_all(conn, "default")
    with database.read() as conn:
        for table in ("endpoints", "deployments", "events"):
            assert conn.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one() == 0


def test_events_come_newest_first_up_to_the_limit(
    database: Database, make_endpoint: MakeEndpoint
) -> None:
    endpoint = make_endpoint("llama")
    history = [
        Event(endpoint.id, 5.0, "DEPLOYMENT", "INFO", f"step {n}", n or None) for n in range(201)
    ]
    with database.write() as conn:
        endpoints.insert(conn, endpoint)
        for event in history:
            events.append(conn, event)
    with database.read() as conn:
        assert events.list_newest(conn, endpoint.id) == history[:0:-1]
        assert events.list_newest(conn, endpoint.id, limit=2) == history[:-3:-1]


def test_event_of_a_missing_endpoint_is_refused(database: Database) -> None:
    with pytest.raises(EndpointGone), database.write() as conn:
        events.append(conn, Event("0" * 32, 1.0, "DEPLOYMENT", "INFO", "began"))
