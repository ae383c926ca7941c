"""Snapshots: a workspace kept under a name, brought back whole, carried elsewhere as JSON."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from servemu.cli.commands import app
from servemu.clock import PausedClock
from servemu.settings import Settings
from servemu.testing import Emulator, serve

Json = dict[str, Any]
Connect = Callable[..., httpx.Client]
Entity = Callable[..., Json]

B = "/api/2.0/serving-endpoints"
SNAPSHOTS = "/_emulator/snapshots"
FAULTS = "/_emulator/faults"


def everything(client: httpx.Client) -> list[Json]:
    """All that a client can see of the workspace, but for how often it was looked at."""
    own = [e for e in client.get(B).json()["endpoints"] if "id" in e]
    paths = [B, FAULTS, "/_emulator/replies"]
    paths += [f"{B}/{e['name']}" for e in own] + [f"{B}/{e['name']}/events" for e in own]
    paths += [f"/api/2.0/permissions/serving-endpoints/{e['id']}" for e in own]
    return [client.get(path).json() for path in paths] + [client.get("/_emulator/clock").json()]


def advance(client: httpx.Client, seconds: float) -> None:
    assert client.post("/_emulator/clock/advance", json={"seconds": seconds}).status_code == 200


def deploy(client: httpx.Client, name: str, entity: Json) -> Json:
    answer = client.post(B, json={"name": name, "config": {"served_entities": [entity]}})
    assert answer.status_code == 200, answer.text
    body: Json = answer.json()
    return body


def furnish(client: httpx.Client, entity: Entity) -> None:
    """One endpoint up, with tags and permissions; one that failed; one under way; rules."""
    up = deploy(client, "up", entity())
    rule = {"id": "gpu", "preset": "no-gpu-capacity", "match": {"endpoint": "failed"}}
    assert client.post(FAULTS, json=rule).status_code == 200
    deploy(client, "failed", entity())
    advance(client, 60)
    client.patch(f"{B}/up/tags", json={"add_tags": [{"key": "a", "value": "ü"}]})
    grant = {"user_name": "ann@example.com", "permission_level": "CAN_QUERY"}
    client.patch(
        f"/api/2.0/permissions/serving-endpoints/{up['id']}",
        json={"access_control_list": [grant]},
    )
    assert client.post("/_emulator/replies", json={"id": "r", "text": "hi"}).status_code == 200
    deploy(client, "waits", entity())
    advance(client, 1)


def test_restore_brings_back_everything_and_what_was_under_way_goes_on(
    workspace: httpx.Client, entity: Entity, get: Callable[[str], Json]
) -> None:
    furnish(workspace, entity)
    before = everything(workspace)
    saved = workspace.post(f"{SNAPSHOTS}/base")
    assert saved.json() == {
        "name": "base",
        "taken_at": 1_750_000_061.0,
        "endpoints": ["failed", "up", "waits"],
        "faults": 1,
    }
    workspace.delete(f"{B}/up")
    workspace.delete(f"{FAULTS}/gpu")
    advance(workspace, 600)
    deploy(workspace, "later", entity())
    assert workspace.post(f"{SNAPSHOTS}/base/restore").status_code == 200
    assert everything(workspace) == before
    assert get("waits")["state"]["config_update"] == "IN_PROGRESS"
    advance(workspace, 60)
    assert get("waits")["state"] == get("up")["state"]


def test_snapshot_outlives_reset_and_restart(
    tmp_path: Path, connect: Connect, entity: Entity
) -> None:
    settings = Settings(engine="synthetic", database=str(tmp_path / "state.db"))
    with serve(settings, PausedClock()) as own, connect(own.url, "emu.kept") as client:
        furnish(client, entity)
        before = everything(client)
        client.post(f"{SNAPSHOTS}/base")
        client.post("/_emulator/reset")
    moved = PausedClock(1_760_000_000.0)
    with serve(settings, moved) as own, connect(own.url, "emu.kept") as client:
        client.post(f"{SNAPSHOTS}/base/restore")
        after = everything(client)
        assert after[:-1] == before[:-1]
        assert after[-1]["now"] == before[-1]["now"]


def test_export_is_imported_elsewhere_with_ids_of_its_own(
    emulator: Emulator, connect: Connect, workspace: httpx.Client, entity: Entity
) -> None:
    furnish(workspace, entity)
    workspace.post(f"{SNAPSHOTS}/base")
    document = workspace.get(f"{SNAPSHOTS}/base").json()
    assert document["servemu_snapshot"] == 1
    with connect(emulator.url) as other:
        assert other.post(f"{SNAPSHOTS}/mine", json=document).status_code == 200
        assert other.get(f"{SNAPSHOTS}/mine").json() == document
        other.post(f"{SNAPSHOTS}/mine/restore")
        theirs, ours = other.get(f"{B}/up").json(), workspace.get(f"{B}/up").json()
        assert theirs.pop("id") != ours.pop("id")
        assert theirs == ours
        assert other.get(f"{B}/waits").json()["state"]["config_update"] == "IN_PROGRESS"


def test_secrets_are_in_no_export(workspace: httpx.Client) -> None:
    model = {
        "name": "gpt",
        "provider": "openai",
        "task": "llm/v1/chat",
        "openai_config": {"openai_api_key_plaintext": "s3cret"},
    }
    config = {"served_entities": [{"name": "gpt", "external_model": model}]}
    assert workspace.post(B, json={"name": "ext", "config": config}).status_code == 200
    workspace.post(f"{SNAPSHOTS}/base")
    exported = workspace.get(f"{SNAPSHOTS}/base").text
    assert '"openai"' in exported
    assert "s3cret" not in exported


@pytest.fixture
def document(workspace: httpx.Client, entity: Entity) -> Json:
    furnish(workspace, entity)
    workspace.post(f"{SNAPSHOTS}/base")
    exported: Json = workspace.get(f"{SNAPSHOTS}/base").json()
    return exported


def spoil(document: Json, path: str, value: object) -> None:
    *way, last = path.split(".")
    place: Any = document
    for step in way:
        place = place[int(step) if step.isdigit() else step]
    place[last] = value


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("servemu_snapshot", 2, "servemu_snapshot"),
        ("surplus", 1, "surplus"),
        ("endpoints.0.id", "x", "endpoints[0].id"),
        ("endpoints.0.name", "a b", "endpoints[0].name"),
        ("endpoints.0.name", "up", "endpoints[0].name: 'up' is there twice"),
        ("endpoints.1.active.entities.0.state", "ODD", "endpoints[1].active.entities[0].state"),
        ("endpoints.1.active.routes.0.served_entity", "odd", "endpoints[1].active.routes"),
        ("endpoints.1.last_config_version", 0, "endpoints[1].active.config_version"),
        ("endpoints.2.pending.due_at", None, "endpoints[2].pending.due_at"),
        ("endpoints.2.config_update", "NOT_UPDATING", "endpoints[2].pending.due_at"),
        ("faults.0.rule", {"effect": {"type": "odd"}}, "faults[0].rule"),
        ("replies.0.reply", {"odd": 1}, "replies[0].reply"),
        ("taken_at", "soon", "taken_at"),
    ],
)
def test_bad_document_is_refused_by_the_field_and_nothing_is_kept(
    workspace: httpx.Client, document: Json, path: str, value: object, told: str
) -> None:
    spoil(document, path, value)
    before = everything(workspace)
    answer = workspace.post(f"{SNAPSHOTS}/bad", json=document)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert told in answer.json()["message"]
    assert [s["name"] for s in workspace.get(SNAPSHOTS).json()["snapshots"]] == ["base"]
    assert everything(workspace) == before


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{SNAPSHOTS}/none"),
        ("DELETE", f"{SNAPSHOTS}/none"),
        ("POST", f"{SNAPSHOTS}/none/restore"),
    ],
)
def test_snapshot_that_is_not_there(
    workspace: httpx.Client, assert_fails: Callable[..., None], method: str, path: str
) -> None:
    message = "Snapshot with name 'none' does not exist."
    assert_fails(workspace.request(method, path), 404, "RESOURCE_DOES_NOT_EXIST", message)


def test_commands_save_export_import_restore_and_remove(
    emulator: Emulator, workspace: httpx.Client, create: Callable[..., Json], tmp_path: Path
) -> None:
    token = workspace.headers["Authorization"].removeprefix("Bearer ")

    def command(*arguments: str) -> str:
        line = ["snapshot", *arguments, "--url", emulator.url, "--token", token]
        done = CliRunner().invoke(app, line, env={"COLUMNS": "200"})
        assert done.exit_code == 0, done.output
        return done.stdout

    create("llama")
    assert command("save", "base") == "base: 1 endpoints, 0 fault rules\n"
    file = tmp_path / "base.json"
    file.write_text(command("export", "base"))
    assert json.loads(file.read_text())["endpoints"][0]["name"] == "llama"
    command("remove", "base")
    command("import", "again", str(file))
    workspace.delete(f"{B}/llama")
    command("restore", "again")
    assert workspace.get(f"{B}/llama").status_code == 200
    assert "again" in command("list")
