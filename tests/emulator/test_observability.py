"""Events and logs tell what really happened."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.observed import CLOCK, ENTITY, GTE, HI, START, B, refusal

from servemu.catalog import CatalogModel
from servemu.clock import PausedClock
from servemu.residents import Build
from servemu.settings import Settings
from servemu.testing import serve
from servemu_engine.base import Embedder, Engine
from servemu_engine.errors import LoadFailed
from servemu_engine.synthetic import SyntheticEngine

Json = dict[str, Any]
Create = Callable[..., Json]
Advance = Callable[[float], None]
Entity = Callable[..., Json]
Connect = Callable[..., httpx.Client]

FAULTS = "/_emulator/faults"
UPDATE = "ENDPOINT_UPDATE"
CONTAINER = "SERVED_ENTITY_CONTAINER_EVENT"
LOADED = (
    "Model loaded in 0.000 s: smollm2-135m-instruct (synthetic, none on none, 0 parameters, "
    "0 bytes, context 131072 tokens)"
)
CAPACITY = "Served entity creation aborted because the resource did not become available in time."


def happened(client: httpx.Client, name: str = "llama") -> list[tuple[str, str, str, int]]:
    """type, status, message and milliseconds since the start; the oldest first."""
    answer = client.get(f"{B}/{name}/events")
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["events"]
    shown = [
        (one["event_type"], one["status"], one["message"], one["timestamp"] - START)
        for one in answer.json()["events"]
    ]
    return shown[::-1]


def log(client: httpx.Client, kind: str = "logs", **query: int) -> str:
    """The text of the log without its bracketed starts, which must be there."""
    answer = client.get(f"{B}/llama/served-models/{ENTITY}/{kind}", params=query)
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["logs"]
    start = r"\[[a-z0-9]{5}\] \[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000\] \[2\] "
    lines = answer.json()["logs"].splitlines()
    assert all(re.match(start, line) for line in lines), lines
    return "\n".join(re.sub(start, "", line) for line in lines)


def test_events_of_a_deployment_are_newest_first_and_in_milliseconds(
    workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    create()
    advance(60)
    assert workspace.get(f"{B}/llama/events", params={"limit": 2}).json() == {
        "events": [
            {
                "event_type": UPDATE,
                "status": "NOT_UPDATING",
                "message": "Endpoint update succeeded for endpoint llama, config version 1",
                "timestamp": START + 1_000,
            },
            {
                "event_type": CONTAINER,
                "status": "DEPLOYMENT_CREATING",
                "message": f"Served entity {ENTITY}: {LOADED}",
                "timestamp": START,
            },
        ]
    }
    assert happened(workspace)[:3] == [
        (UPDATE, "IN_PROGRESS", "Endpoint created", 0),
        (
            UPDATE,
            "IN_PROGRESS",
            "Endpoint update initiated for endpoint llama, config version 1",
            0,
        ),
        (CONTAINER, "DEPLOYMENT_CREATING", f"Served entity {ENTITY}: Container started", 0),
    ]


def test_events_of_a_lack_of_capacity_name_the_entity_and_the_endpoint(
    workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    workspace.post(FAULTS, json={"preset": "no-gpu-capacity"})
    create()
    advance(29)
    assert happened(workspace)[2:] == [
        (CONTAINER, "DEPLOYMENT_ABORTED", f"Failed to deploy {ENTITY}: {CAPACITY}", 29_000),
        (
            UPDATE,
            "UPDATE_FAILED",
            "Endpoint update failed for endpoint llama, config version 1",
            29_000,
        ),
    ]


def test_events_of_stop_and_start_show_both(
    workspace: httpx.Client, connect: Connect, advance: Advance
) -> None:
    config = {"served_entities": [{"entity_name": "ml.llm-catalog.custom", "entity_version": "1"}]}
    custom = {"ml.llm-catalog.custom": {"family": "gte-large", "versions": ["1"]}}
    own = Settings(engine="synthetic", catalog={"models": custom})
    with serve(own, PausedClock()) as emulator, connect(emulator.url) as client:
        client.post(B, json={"name": "llama", "config": config})
        client.post(CLOCK, json={"seconds": 60})
        assert client.post(f"{B}/llama/config:stop").status_code == 200
        assert client.post(f"{B}/llama/config:start").status_code == 200
        client.post(CLOCK, json={"seconds": 60})
        told = [(status, message) for _, status, message, _ in happened(client)][5:]
    loaded = "Served entity custom-1: Model loaded in 0.000 s: all-minilm-l6-v2"
    assert [(status, message.partition(" (")[0]) for status, message in told] == [
        ("DEPLOYMENT_STOPPED", "Served entity custom-1: Stopped"),
        ("IN_PROGRESS", "Endpoint update initiated for endpoint llama, config version 2"),
        ("DEPLOYMENT_CREATING", "Served entity custom-1: Container started"),
        ("DEPLOYMENT_CREATING", loaded),
        ("NOT_UPDATING", "Endpoint update succeeded for endpoint llama, config version 2"),
    ]


def test_events_tell_when_an_idle_endpoint_was_scaled_to_zero(
    workspace: httpx.Client, advance: Advance
) -> None:
    config = {"served_entities": [{**GTE, "scale_to_zero_enabled": True}]}
    workspace.post(B, json={"name": "llama", "config": config})
    advance(60)
    advance(30)
    message = "Served entity gte_large_en_v1_5-1: Scaled to zero"
    assert happened(workspace)[-1] == (CONTAINER, "DEPLOYMENT_READY", message, 31_000)


def test_resize_at_once_is_an_update_that_began_and_succeeded(
    workspace: httpx.Client, advance: Advance
) -> None:
    served = {"name": ENTITY, "entity_name": "system.ai.gpt-oss-20b", "entity_version": "1"}

    def config(units: int) -> Json:
        return {"served_entities": [{**served, "provisioned_model_units": units}]}

    workspace.post(f"{B}/pt", json={"name": "llama", "config": config(50)})
    advance(60)
    workspace.put(f"{B}/pt/llama/config", json={"config": config(100)})
    assert [(status, message) for _, status, message, _ in happened(workspace)][-3:] == [
        ("NOT_UPDATING", "Endpoint update initiated for endpoint llama, config version 2"),
        ("DEPLOYMENT_READY", f"Served entity {ENTITY}: Container started"),
        ("NOT_UPDATING", "Endpoint update succeeded for endpoint llama, config version 2"),
    ]
    assert log(workspace) == "[INFO] Container started"


def test_endpoint_without_a_config_has_one_event(workspace: httpx.Client) -> None:
    workspace.post(B, json={"name": "llama"})
    assert happened(workspace) == [(UPDATE, "NOT_UPDATING", "Endpoint created", 0)]


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5", "", "99999999999999999999"])
def test_limit_that_is_no_whole_number_is_refused(
    workspace: httpx.Client, create: Create, limit: str
) -> None:
    create()
    answer = workspace.get(f"{B}/llama/events", params={"limit": limit})
    message = f"Invalid value for parameter 'limit': '{limit}'"
    assert refusal(answer) == (400, "INVALID_PARAMETER_VALUE", message)


def test_logs_tell_how_the_container_came_up_and_how_many_requests_it_answered(
    workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    create()
    advance(60)
    up = f"[INFO] Container started\n[INFO] {LOADED}"
    assert log(workspace) == up
    answer = workspace.post("/serving-endpoints/llama/invocations", json={"messages": HI})
    used = answer.json()["usage"]
    workspace.post("/serving-endpoints/llama/invocations", json={"seed": 1})
    assert log(workspace) == (
        f"{up}\n[INFO] Requests answered so far: 2 (200: 1, 400: 1); "
        f"tokens in: {used['prompt_tokens']}, tokens out: {used['completion_tokens']}"
    )
    assert log(workspace, "build-logs") == ""


@pytest.mark.parametrize("kind", ["logs", "build-logs"])
def test_logs_before_a_container_exists_are_not_found(
    workspace: httpx.Client, create: Create, advance: Advance, kind: str
) -> None:
    create()
    path = f"{B}/llama/served-models/{ENTITY}/{kind}"
    assert refusal(workspace.get(path)) == (
        404,
        "RESOURCE_DOES_NOT_EXIST",
        f"No logs of served entity '{ENTITY}' in config version 1 of endpoint 'llama': it has no "
        "container.",
    )
    advance(0.5)
    assert workspace.get(path).status_code == 200


@pytest.mark.parametrize("kind", ["logs", "build-logs"])
def test_logs_of_what_is_not_served_are_not_found(
    workspace: httpx.Client, create: Create, advance: Advance, kind: str
) -> None:
    create()
    advance(60)
    assert refusal(workspace.get(f"{B}/llama/served-models/other/{kind}")) == (
        404,
        "RESOURCE_DOES_NOT_EXIST",
        "Served entity 'other' of endpoint 'llama' does not exist.",
    )
    assert refusal(workspace.get(f"{B}/other/served-models/{ENTITY}/{kind}")) == (
        404,
        "RESOURCE_DOES_NOT_EXIST",
        "Endpoint with name 'other' does not exist.",
    )
    answer = workspace.get(f"{B}/llama/served-models/{ENTITY}/{kind}?config_version=2")
    assert answer.status_code == 404


class BrokenEngine(SyntheticEngine):
    """Fails to load as it is told."""

    def __init__(self, error: Exception) -> None:
        super().__init__("broken")
        self._error = error

    def start(self) -> None:
        raise self._error


def breaking(error: Exception) -> Build:
    """An 8B comes up, a 70B does not."""

    def build(model: CatalogModel) -> Engine | Embedder:
        return BrokenEngine(error) if model.family.stand_in == "broken" else SyntheticEngine("up")

    return build


@contextmanager
def failed(error: Exception, connect: Connect, entity: Entity) -> Iterator[httpx.Client]:
    """`llama` serves its version 1; its version 2 did not load."""
    families = {"llama-70b": {"stand_in": "broken"}}
    own = Settings(engine="synthetic", catalog={"families": families})
    slow = entity(name=ENTITY, entity_name="system.ai.llama_v3_3_70b_instruct", entity_version="1")
    with serve(own, PausedClock(), breaking(error)) as emulator, connect(emulator.url) as client:
        client.post(B, json={"name": "llama", "config": {"served_entities": [entity()]}})
        client.post(CLOCK, json={"seconds": 60})
        client.put(f"{B}/llama/config", json={"served_entities": [slow]})
        client.post(CLOCK, json={"seconds": 60})
        yield client


def test_failed_load_is_found_in_the_logs_of_its_config_version_only(
    connect: Connect, entity: Entity
) -> None:
    with failed(LoadFailed("no weights at /x"), connect, entity) as client:
        reason = "Model server failed to load the model. no weights at /x"
        assert "ERROR" not in log(client)
        lines = log(client, config_version=2).splitlines()
        assert lines[:3] == [
            "[INFO] Container started",
            "[ERROR] Model server failed to load the model.",
            "[ERROR] Traceback (most recent call last):",
        ]
        assert lines[-2:] == [
            "[ERROR] servemu_engine.errors.LoadFailed: no weights at /x",
            f"[ERROR] {reason}",
        ]
        assert happened(client)[-3:] == [
            (
                CONTAINER,
                "DEPLOYMENT_CREATING",
                f"Served entity {ENTITY}: Model server failed to load the model.",
                60_000,
            ),
            (CONTAINER, "DEPLOYMENT_FAILED", f"Failed to deploy {ENTITY}: {reason}", 65_000),
            (
                UPDATE,
                "UPDATE_FAILED",
                "Endpoint update failed for endpoint llama, config version 2",
                65_000,
            ),
        ]


def test_logs_of_a_failed_first_config_need_its_version(
    workspace: httpx.Client, connect: Connect, entity: Entity
) -> None:
    families = {"llama-70b": {"stand_in": "broken"}}
    own = Settings(engine="synthetic", catalog={"families": families})
    slow = entity(name=ENTITY, entity_name="system.ai.llama_v3_3_70b_instruct", entity_version="1")
    build = breaking(ZeroDivisionError("oops"))
    with serve(own, PausedClock(), build) as emulator, connect(emulator.url) as client:
        client.post(B, json={"name": "llama", "config": {"served_entities": [slow]}})
        client.post(CLOCK, json={"seconds": 60})
        assert client.get(f"{B}/llama/served-models/{ENTITY}/logs").status_code == 404
        assert log(client, config_version=1).endswith(
            "[ERROR] ZeroDivisionError: oops\n"
            "[ERROR] Model server failed to load the model. An error occurred in model loading "
            "code: ZeroDivisionError: oops"
        )


def test_events_and_logs_survive_a_restart_and_counts_begin_again(
    tmp_path: Path, connect: Connect, entity: Entity
) -> None:
    own = Settings(engine="synthetic", database=str(tmp_path / "state.db"))
    with serve(own, PausedClock()) as emulator, connect(emulator.url, "emu.logs") as client:
        client.post(B, json={"name": "llama", "config": {"served_entities": [entity()]}})
        client.post(CLOCK, json={"seconds": 60})
        kept = happened(client), client.get(f"{B}/llama/served-models/{ENTITY}/logs").json()
        client.post("/serving-endpoints/llama/invocations", json={"messages": HI})
    with serve(own, PausedClock()) as emulator, connect(emulator.url, "emu.logs") as client:
        again = happened(client), client.get(f"{B}/llama/served-models/{ENTITY}/logs").json()
        assert again == kept


def test_recreated_endpoint_has_its_own_history(
    workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    create()
    advance(60)
    workspace.delete(f"{B}/llama")
    create()
    assert [message for _, _, message, _ in happened(workspace)] == [
        "Endpoint created",
        "Endpoint update initiated for endpoint llama, config version 1",
    ]
