"""A workspace back at its first second: nothing of it is left, nobody else's is touched."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from servemu.clock import PausedClock
from servemu.entry import Entry
from servemu.settings import Settings
from servemu.testing import Emulator, serve
from servemu_state import endpoints, workspaces

Json = dict[str, Any]
Connect = Callable[..., httpx.Client]
Entity = Callable[..., Json]

B = "/api/2.0/serving-endpoints"
RESET = "/_emulator/reset"
FAULTS = "/_emulator/faults"


def everything(client: httpx.Client) -> list[Json]:
    """All that a client can see of the workspace, but for how often it was looked at."""
    paths = (B, FAULTS, "/_emulator/clock", "/_emulator/events/hash")
    findings: list[Json] = client.get("/_emulator/verdict").json()["findings"]
    return [client.get(path).json() for path in paths] + findings


def deploy(client: httpx.Client, name: str, entity: Json) -> httpx.Response:
    return client.post(B, json={"name": name, "config": {"served_entities": [entity]}})


def advance(client: httpx.Client, seconds: float) -> None:
    assert client.post("/_emulator/clock/advance", json={"seconds": seconds}).status_code == 200


def test_reset_leaves_what_a_new_workspace_has(
    emulator: Emulator, connect: Connect, entity: Entity
) -> None:
    with connect(emulator.url) as fresh:
        expected = everything(fresh)
    with connect(emulator.url) as used:
        deploy(used, "up", entity())
        advance(used, 60)
        used.post("/serving-endpoints/up/invocations", json={"messages": []})
        used.patch(f"{B}/up/tags", json={"add_tags": [{"key": "a"}]})
        used.post(FAULTS, json={"preset": "no-gpu-capacity"})
        deploy(used, "waits", entity())
        answer = used.post(RESET)
        assert (answer.status_code, answer.json()) == (200, {"endpoints": 2})
        assert everything(used) == expected


def test_reset_stops_what_is_under_way_and_names_are_free_again(
    workspace: httpx.Client, entity: Entity, get: Callable[[str], Json]
) -> None:
    deploy(workspace, "llama", entity())
    advance(workspace, 1)
    workspace.post(RESET)
    deploy(workspace, "llama", entity())
    advance(workspace, 0.4)
    assert get("llama")["state"]["config_update"] == "IN_PROGRESS"
    advance(workspace, 60)
    assert get("llama")["config"]["config_version"] == 1


def test_reset_of_one_workspace_leaves_the_others_alone(
    emulator: Emulator, connect: Connect, workspace: httpx.Client, entity: Entity
) -> None:
    with connect(emulator.url) as other:
        deploy(other, "theirs", entity())
        other.post(FAULTS, json={"id": "theirs", "preset": "no-gpu-capacity"})
        before = everything(other)
        deploy(workspace, "mine", entity())
        workspace.post(RESET)
        assert everything(other) == before
        advance(other, 60)
        assert other.get(f"{B}/theirs").json()["state"]["ready"] == "READY"


def test_reset_is_seen_by_a_restart_also_when_the_rows_are_still_there(
    tmp_path: Path, connect: Connect, entity: Entity
) -> None:
    settings = Settings(engine="synthetic", database=str(tmp_path / "state.db"))
    with serve(settings, PausedClock()) as own, connect(own.url, "emu.again") as client:
        deploy(client, "gone", entity())
        with own.world.db.write() as connection:  # as a kill between the reset and its cleaning
            record = own.world.workspaces.open("again")
            workspaces.save(connection, replace(record, generation=1))
    with serve(settings, PausedClock()) as own, connect(own.url, "emu.again") as client:
        assert client.get(f"{B}/gone").status_code == 404
        with own.world.db.read() as connection:
            assert endpoints.list_due(connection) == []
            assert connection.exec_driver_sql("SELECT count(*) FROM events").scalar() == 0
        assert deploy(client, "gone", entity()).status_code == 200


def test_reset_removes_the_rows_behind_its_answer(
    emulator: Emulator, workspace: httpx.Client, create: Callable[..., Json]
) -> None:
    ids = {create(f"e-{number}")["id"] for number in range(120)}
    workspace.post(RESET)
    while not emulator.world.attic.is_empty:
        workspace.get("/_emulator/health")
    with emulator.world.db.read() as connection:
        rows = connection.exec_driver_sql("SELECT id FROM endpoints")
        assert ids.isdisjoint(id for (id,) in rows)


def test_seeded_ids_come_again_after_a_reset(connect: Connect, entity: Entity) -> None:
    settings = Settings(engine="synthetic", seed=7)
    with serve(settings, PausedClock()) as own, connect(own.url) as client:
        first = deploy(client, "llama", entity()).json()
        client.post(RESET)
        assert deploy(client, "llama", entity()).json() == first
        assert json.dumps(first).count(first["id"]) == 1


def test_request_that_began_before_a_reset_is_not_in_the_journal_after_it(
    workspace: httpx.Client, emulator: Emulator
) -> None:
    journal, name = emulator.world.journal, "before-reset"
    old = Entry(time.monotonic(), 0.0, "GET", B, "", "", None)
    journal.forget(name)
    journal.record(name, old)
    assert journal.entries(name) == []
