"""Any record survives the way into the database and back."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servemu_state import endpoints, events, faults, workspaces
from servemu_state.database import Database, open_database
from servemu_state.records import (
    Deployment,
    Endpoint,
    Event,
    FaultRule,
    Route,
    ServedEntity,
    Workspace,
)

TEXT = st.text(max_size=20)
TIME = st.floats(allow_nan=False, allow_infinity=False)
COUNT = st.integers(0, 2**31 - 1)
LEAF = st.none() | st.booleans() | st.integers() | TIME | TEXT
JSON = st.dictionaries(
    TEXT,
    st.recursive(LEAF, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=5),
    max_size=3,
)
ENTITY = st.builds(
    ServedEntity,
    name=TEXT,
    created_at=TIME,
    min_provisioned_throughput=st.none() | COUNT,
    entity_name=st.none() | TEXT,
    settings=JSON,
)
DEPLOYMENT = st.builds(
    Deployment,
    config_version=COUNT,
    entities=st.lists(ENTITY, max_size=3).map(tuple),
    routes=st.lists(st.builds(Route, TEXT, COUNT), max_size=3).map(tuple),
    started_at=TIME,
    stage=COUNT,
    due_at=st.none() | TIME,
    fault=st.none() | JSON,
)
ENDPOINT = st.builds(
    Endpoint,
    id=st.text("0123456789abcdef", min_size=32, max_size=32),
    workspace=TEXT.filter(lambda name: not name.startswith(".")),
    name=TEXT,
    creator=TEXT,
    created_at=TIME,
    updated_at=TIME,
    last_config_version=COUNT,
    tags=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
    settings=JSON,
    active=st.none() | DEPLOYMENT,
    pending=st.none() | DEPLOYMENT,
)


@pytest.fixture(scope="module")
def shared() -> Iterator[Database]:
    """One database for all examples; each cleans up after itself."""
    database = open_database(":memory:")
    yield database
    database.close()


@settings(max_examples=60, deadline=None)
@given(endpoint=ENDPOINT, saved=ENDPOINT)
def test_any_endpoint_survives(shared: Database, endpoint: Endpoint, saved: Endpoint) -> None:
    saved = replace(saved, id=endpoint.id, workspace=endpoint.workspace)
    with shared.write() as conn:
        endpoints.insert(conn, endpoint)
        assert endpoints.get(conn, endpoint.workspace, endpoint.name) == endpoint
        endpoints.save(conn, saved)
        assert endpoints.get_by_id(conn, saved.workspace, endpoint.id) == saved
        endpoints.delete(conn, endpoint.id)


@settings(max_examples=30, deadline=None)
@given(endpoint=ENDPOINT, at=TIME, words=st.tuples(TEXT, TEXT, TEXT), version=st.none() | COUNT)
def test_any_event_survives(
    shared: Database,
    endpoint: Endpoint,
    at: float,
    words: tuple[str, str, str],
    version: int | None,
) -> None:
    event = Event(endpoint.id, at, *words, version)
    with shared.write() as conn:
        endpoints.insert(conn, endpoint)
        events.append(conn, event)
        assert events.list_newest(conn, endpoint.id) == [event]
        endpoints.delete(conn, endpoint.id)


@settings(max_examples=30, deadline=None)
@given(
    rule=st.builds(
        FaultRule,
        workspace=TEXT,
        id=TEXT,
        rule=JSON,
        created_at=TIME,
        matched=COUNT,
        fired=COUNT,
        last_request_id=st.none() | TEXT,
    )
)
def test_any_fault_rule_survives(shared: Database, rule: FaultRule) -> None:
    with shared.write() as conn:
        faults.insert(conn, rule)
        assert faults.list_all(conn, rule.workspace) == [rule]
        assert faults.delete(conn, rule.workspace, rule.id)


@settings(max_examples=30, deadline=None)
@given(workspace=st.builds(Workspace, TEXT, TIME, TIME))
def test_any_workspace_survives(shared: Database, workspace: Workspace) -> None:
    with shared.write() as conn:
        workspaces.insert_if_absent(conn, Workspace(workspace.name, 0.0))
        workspaces.save(conn, workspace)
        assert workspaces.get(conn, workspace.name) == workspace
