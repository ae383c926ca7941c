"""Stopped, started again, scaled to zero, woken: facts/control_plane §3."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.sleepers import (
    ASKED,
    ASLEEP,
    AWAKE,
    CUSTOM,
    IDLE,
    QUERY,
    READY,
    SLEEPER,
    UP,
    B,
    entity_of,
    outline,
)

from servemu.clock import PausedClock
from servemu.settings import Settings
from servemu.testing import serve

Json = dict[str, Any]
Create = Callable[..., Json]
Get = Callable[..., Json]
Advance = Callable[[float], None]
Connect = Callable[..., httpx.Client]
AssertFails = Callable[[httpx.Response, int, str, str], None]

STOPPED = ("NOT_READY", "NOT_UPDATING", "STOPPED", 1, None)


@pytest.fixture
def up(create: Create, advance: Advance) -> None:
    """The custom endpoint `own` serves."""
    create("own", CUSTOM)
    advance(UP)


def post(client: httpx.Client, action: str, name: str = "own") -> httpx.Response:
    return client.post(f"{B}/{name}/config:{action}")


@pytest.mark.usefixtures("up")
def test_stopped_endpoint_keeps_its_config_and_answers_nothing(
    workspace: httpx.Client, get: Get
) -> None:
    assert workspace.post(QUERY, json=ASKED).status_code == 200
    stopped = post(workspace, "stop")
    assert (stopped.status_code, stopped.json()) == (200, get("own"))
    assert outline(get("own")) == STOPPED
    assert entity_of(get("own")) == ("DEPLOYMENT_STOPPED", "Stopped")
    answer = workspace.post(QUERY, json=ASKED)
    message = "The given endpoint is stopped, please retry after starting the endpoint."
    body = {"error_code": "BAD_REQUEST", "message": message}
    assert (answer.status_code, answer.json()) == (400, body)


@pytest.mark.usefixtures("up")
def test_stopping_again_changes_nothing(workspace: httpx.Client) -> None:
    assert post(workspace, "stop").json() == post(workspace, "stop").json()


@pytest.mark.usefixtures("up")
def test_started_endpoint_comes_up_as_the_next_version(
    workspace: httpx.Client, advance: Advance, get: Get
) -> None:
    post(workspace, "stop")
    started = post(workspace, "start")
    assert started.status_code == 200
    assert outline(started.json()) == ("NOT_READY", "IN_PROGRESS", "NOT_SUSPENDED", 1, 2)
    [entity] = started.json()["pending_config"]["served_entities"]
    assert entity["state"]["deployment"] == "DEPLOYMENT_CREATING"
    assert workspace.post(QUERY, json=ASKED).status_code == 404
    advance(UP)
    assert outline(get("own")) == ("READY", "NOT_UPDATING", "NOT_SUSPENDED", 2, None)
    assert workspace.post(QUERY, json=ASKED).status_code == 200


@pytest.mark.usefixtures("up")
def test_update_revives_a_stopped_endpoint(
    workspace: httpx.Client, advance: Advance, get: Get
) -> None:
    post(workspace, "stop")
    updated = workspace.put(f"{B}/own/config", json={"served_entities": [CUSTOM | {"name": "n"}]})
    assert outline(updated.json()) == ("NOT_READY", "IN_PROGRESS", "NOT_SUSPENDED", 1, 2)
    advance(UP)
    assert outline(get("own")) == ("READY", "NOT_UPDATING", "NOT_SUSPENDED", 2, None)


@pytest.mark.usefixtures("up")
def test_start_that_fails_leaves_the_endpoint_stopped(
    workspace: httpx.Client, advance: Advance, get: Get
) -> None:
    post(workspace, "stop")
    workspace.post("/_emulator/faults", json={"preset": "no-gpu-capacity-on-update"})
    post(workspace, "start")
    advance(60)
    assert outline(get("own")) == ("NOT_READY", "UPDATE_FAILED", "STOPPED", 1, 2)
    assert post(workspace, "start").status_code == 200


@pytest.mark.usefixtures("up")
def test_stop_forgets_a_failed_update(workspace: httpx.Client, advance: Advance, get: Get) -> None:
    workspace.post("/_emulator/faults", json={"preset": "no-gpu-capacity-on-update"})
    workspace.put(f"{B}/own/config", json={"served_entities": [CUSTOM]})
    advance(60)
    assert outline(get("own")) == ("READY", "UPDATE_FAILED", "NOT_SUSPENDED", 1, 2)
    assert outline(post(workspace, "stop").json()) == STOPPED


@pytest.mark.usefixtures("up")
def test_stopped_endpoint_takes_tags_and_can_be_deleted(workspace: httpx.Client, get: Get) -> None:
    post(workspace, "stop")
    workspace.patch(f"{B}/own/tags", json={"add_tags": [{"key": "a"}]})
    assert outline(get("own")) == STOPPED
    assert workspace.delete(f"{B}/own").status_code == 200


INVALID = "INVALID_PARAMETER_VALUE"
UPDATING = "Endpoint served entities are currently being updated"
ONLY_CUSTOM = "Endpoint 'x' cannot be stopped: only endpoints with custom models can."
THROUGHPUT = {
    "entity_name": CUSTOM["entity_name"],
    "entity_version": "3",
    "max_provisioned_throughput": 1580,
}
EXTERNAL = {
    "external_model": {
        "provider": "openai",
        "name": "m",
        "task": "llm/v1/chat",
        "openai_config": {"openai_api_key": "{{secrets/a/b}}"},
    }
}
CASES: dict[str, tuple[Json | None, float, str, int, str, str]] = {
    "stop throughput": (THROUGHPUT, UP, "stop", 400, INVALID, ONLY_CUSTOM),
    "stop an external model": (EXTERNAL, UP, "stop", 400, INVALID, ONLY_CUSTOM),
    "stop while it comes up": (CUSTOM, 0.5, "stop", 409, "RESOURCE_CONFLICT", UPDATING),
    "start while it comes up": (CUSTOM, 0.5, "start", 409, "RESOURCE_CONFLICT", UPDATING),
    "start what runs": (CUSTOM, UP, "start", 400, INVALID, "Endpoint 'x' is not stopped."),
    "stop nothing": (None, UP, "stop", 400, INVALID, "Endpoint 'x' has nothing deployed to stop."),
    "start nothing": (None, UP, "start", 400, INVALID, "Endpoint 'x' is not stopped."),
}


@pytest.mark.parametrize("case", CASES)
def test_stop_or_start_is_refused(
    assert_fails: AssertFails, workspace: httpx.Client, advance: Advance, case: str
) -> None:
    entity, seconds, action, status, error_code, message = CASES[case]
    config = {} if entity is None else {"config": {"served_entities": [entity]}}
    assert workspace.post(B, json={"name": "x"} | config).status_code == 200
    advance(seconds)
    before = workspace.get(f"{B}/x").json()
    assert_fails(post(workspace, action, "x"), status, error_code, message)
    assert workspace.get(f"{B}/x").json() == before


@pytest.mark.parametrize("name", ["none", "databricks-gpt-5"])
@pytest.mark.parametrize("action", ["stop", "start"])
def test_only_ones_own_endpoints_stop_and_start(
    workspace: httpx.Client, action: str, name: str
) -> None:
    status = 404 if name == "none" else 403
    assert post(workspace, action, name).status_code == status


def test_idle_entity_scales_to_zero_and_stays_ready(
    create: Create, advance: Advance, get: Get
) -> None:
    create("own", SLEEPER)
    advance(UP)
    advance(IDLE - 0.5)
    assert entity_of(get("own")) == AWAKE
    advance(0.5)
    assert (outline(get("own")), entity_of(get("own"))) == (READY, ASLEEP)


def test_requests_keep_it_awake(
    workspace: httpx.Client, create: Create, advance: Advance, get: Get
) -> None:
    create("own", SLEEPER)
    advance(UP)
    for _ in range(4):
        advance(IDLE - 1)
        assert workspace.post(QUERY, json=ASKED).status_code == 200
        assert entity_of(get("own")) == AWAKE
    advance(IDLE)
    assert entity_of(get("own")) == ASLEEP


def test_entity_that_may_not_never_scales_to_zero(
    create: Create, advance: Advance, get: Get
) -> None:
    create("own", CUSTOM)
    advance(86400)
    assert entity_of(get("own")) == AWAKE


def test_only_the_entity_that_may_sleeps(
    workspace: httpx.Client, advance: Advance, get: Get
) -> None:
    routes = [{"served_entity_name": "a", "traffic_percentage": 100}]
    config = {
        "served_entities": [CUSTOM | {"name": "a"}, SLEEPER | {"name": "b"}],
        "traffic_config": {"routes": routes},
    }
    workspace.post(B, json={"name": "own", "config": config})
    advance(UP)
    advance(IDLE)
    entities = get("own")["config"]["served_entities"]
    messages = [entity["state"]["deployment_state_message"] for entity in entities]
    assert messages == ["", "Scaled to zero"]
    assert workspace.post(QUERY, json=ASKED).status_code == 200


def test_sleeping_endpoint_can_be_stopped_and_updated(
    workspace: httpx.Client, create: Create, advance: Advance, get: Get
) -> None:
    create("own", SLEEPER)
    advance(UP)
    advance(IDLE)
    workspace.put(f"{B}/own/config", json={"served_entities": [SLEEPER]})
    assert entity_of(get("own")) == ASLEEP
    advance(UP)
    assert entity_of(get("own")) == AWAKE
    advance(IDLE)
    assert entity_of(get("own")) == ASLEEP
    assert entity_of(post(workspace, "stop").json()) == ("DEPLOYMENT_STOPPED", "Stopped")


def test_update_that_lands_before_the_idle_time_is_over_starts_it_anew(
    workspace: httpx.Client, create: Create, advance: Advance, get: Get
) -> None:
    create("own", SLEEPER)
    advance(UP)
    workspace.put(f"{B}/own/config", json={"served_entities": [SLEEPER]})
    advance(IDLE)
    assert (get("own")["config"]["config_version"], entity_of(get("own"))) == (2, AWAKE)


def test_stopped_and_sleeping_survive_a_restart(tmp_path: Path, connect: Connect) -> None:
    settings = Settings(engine="synthetic", database=str(tmp_path / "state.db"))

    @contextmanager
    def start() -> Iterator[httpx.Client]:
        with serve(settings, PausedClock()) as own, connect(own.url, "emu.rest") as client:
            yield client

    def deploy(client: httpx.Client, name: str, entity: Json) -> None:
        body = {"name": name, "config": {"served_entities": [entity]}}
        assert client.post(B, json=body).status_code == 200

    def pass_time(client: httpx.Client, seconds: float) -> None:
        client.post("/_emulator/clock/advance", json={"seconds": seconds})

    with start() as client:
        deploy(client, "own", CUSTOM)
        deploy(client, "asleep", SLEEPER)
        pass_time(client, UP)
        post(client, "stop")
        pass_time(client, IDLE)
        deploy(client, "awake", SLEEPER)
        pass_time(client, UP)
        before = client.get(B).json()
    with start() as client:
        assert client.get(B).json() == before
        assert outline(client.get(f"{B}/own").json()) == STOPPED
        assert entity_of(client.get(f"{B}/asleep").json()) == ASLEEP
        pass_time(client, IDLE)
        assert entity_of(client.get(f"{B}/awake").json()) == ASLEEP
