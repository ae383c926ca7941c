"""Same seed, same run: ids, draws, texts and the hash of the event log. Time that is moved by hand
brings everything that falls due.
"""

import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from servemu.clock import PausedClock
from servemu.dice import Dice
from servemu.settings import Settings
from servemu.testing import serve

Json = dict[str, Any]
Connect = Callable[..., httpx.Client]
Entity = Callable[..., Json]

B = "/api/2.0/serving-endpoints"
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}


@pytest.fixture
def run(connect: Connect, entity: Entity) -> Callable[..., Json]:
    """A whole story in an emulator of its own; what a client sees of it."""

    def run(seed: int | None, *, polls: int = 1) -> Json:
        settings = Settings(engine="synthetic", seed=seed)
        with serve(settings, PausedClock()) as own, connect(own.url, "emu.story") as client:
            rule = {
                "match": {"operation": "invocations"},
                "when": {"probability": 0.3},
                "phase": "request",
                "effect": {"type": "status", "status": 500},
            }
            faults = [client.post("/_emulator/faults", json=rule).json()]
            routes = [{"served_entity_name": name, "traffic_percentage": 50} for name in ("a", "b")]
            config = {
                "served_entities": [entity(name="a"), entity(name="b")],
                "traffic_config": {"routes": routes},
            }
            created = client.post(B, json={"name": "llama", "config": config})
            client.post("/_emulator/clock/advance", json={"seconds": 60})
            for _ in range(polls):
                client.get(f"{B}/llama")
            path = "/serving-endpoints/llama/invocations"
            answers = [client.post(path, json=CHAT) for _ in range(20)]
            client.delete(f"{B}/llama")
            return {
                "faults": [fault["id"] for fault in faults],
                "created": created.json(),
                "request": created.headers["x-request-id"],
                "answers": [
                    (a.status_code, a.headers.get("served-model-name"), a.headers["x-request-id"])
                    for a in answers
                ],
                "bodies": [a.json() for a in answers],
                "log": client.get("/_emulator/events/hash").json(),
            }

    return run


def test_same_seed_gives_the_same_ids_draws_texts_and_event_log(run: Callable[..., Json]) -> None:
    first = run(7)
    assert run(7) == first
    assert {status for status, *_ in first["answers"]} == {200, 500}
    assert {entity for _, entity, _ in first["answers"]} == {None, "a", "b"}


def test_another_seed_gives_another_run_and_none_a_fresh_one(run: Callable[..., Json]) -> None:
    stories = [run(7), run(8), run(None), run(None)]
    assert len({story["created"]["id"] for story in stories}) == 4
    assert len({story["log"]["hash"] for story in stories}) == 4
    assert len({str(story["answers"]) for story in stories}) == 4


def test_how_often_somebody_looked_changes_nothing_else(run: Callable[..., Json]) -> None:
    assert run(7, polls=5) == run(7)


def test_draws_of_one_kind_do_not_depend_on_the_others_or_on_other_workspaces() -> None:
    alone, among = Dice(7), Dice(7)
    drawn = []
    for _ in range(3):
        among.hex("w", "other")
        among.hex("v", "kind")
        drawn.append(among.hex("w", "kind"))
    assert drawn == [alone.hex("w", "kind") for _ in range(3)]
    assert len(set(drawn)) == 3
    assert Dice(7).hex("v", "kind") != drawn[0]


def test_numbers_are_spread_evenly_over_0_to_1() -> None:
    dice = Dice(1)
    numbers = [dice.number("w", "n") for _ in range(4000)]
    assert 0 <= min(numbers) < max(numbers) < 1
    assert abs(sum(numbers) / len(numbers) - 0.5) < 0.02
    assert all(0 <= dice.whole("w", "n") < 2**63 for _ in range(100))


def test_advance_fires_all_that_is_due_in_order(
    workspace: httpx.Client, create: Callable[..., Json], entity: Entity
) -> None:
    """Each stage at its own time, idle from when it was up; the rule has expired."""
    rule = {"id": "short", "preset": "no-gpu-capacity", "expires_in": "PT1H"}
    assert workspace.post("/_emulator/faults", json=rule).status_code == 200
    workspace.post("/_emulator/clock/advance", json={"seconds": 3600})
    create("sleeper", entity(scale_to_zero_enabled=True))
    workspace.post("/_emulator/clock/advance", json={"seconds": 60})
    workspace.post("/_emulator/clock/advance", json={"seconds": 86400})
    told = workspace.get(f"{B}/sleeper/events").json()["events"]
    times = [event["timestamp"] for event in told]
    assert times == sorted(times, reverse=True)
    messages = [event["message"] for event in reversed(told)]
    assert messages[0] == "Endpoint created"
    assert messages[-1].endswith("Scaled to zero")
    assert any("succeeded" in message for message in messages)


def test_token_expires_when_the_clock_is_advanced(
    workspace: httpx.Client, connect: Connect
) -> None:
    name = workspace.headers["Authorization"].removeprefix("Bearer emu.")
    form = {
        "grant_type": "client_credentials",
        "client_id": f"emu.{name}.robot",
        "client_secret": "any",
    }
    token = workspace.post("/oidc/v1/token", data=form).json()["access_token"]
    with connect(str(workspace.base_url), token) as robot:
        assert robot.get(B).status_code == 200
        workspace.post("/_emulator/clock/advance", json={"seconds": 3601})
        assert robot.get(B).status_code == 403


def test_process_with_a_paused_clock_and_a_seed(connect: Connect, entity: Entity) -> None:
    options = "up --engine synthetic --port 0 --clock paused --seed 3"
    command = [sys.executable, "-m", "servemu", *options.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        url = running.stdout.readline().split()[-1]
        with connect(url) as client:
            body = {"name": "llama", "config": {"served_entities": [entity()]}}
            created = client.post(B, json=body).json()
            first = client.get("/_emulator/clock").json()["now"]
            assert client.get(f"{B}/llama").json()["state"] == created["state"]
            client.post("/_emulator/clock/advance", json={"seconds": 10})
            assert client.get("/_emulator/clock").json()["now"] == first + 10
            assert client.get(f"{B}/llama").json()["state"]["ready"] == "READY"
            assert client.get("/_emulator/events/hash").json()["seed"] == 3
        running.send_signal(signal.SIGTERM)
        assert running.wait() == 0
