"""What was acknowledged is there after a restart, and deployments go on from where they were."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from servemu.clock import PausedClock
from servemu.settings import Settings
from servemu.testing import serve

Json = dict[str, Any]
Connect = Callable[..., httpx.Client]
Entity = Callable[..., Json]
Running = tuple[httpx.Client, subprocess.Popen[str]]

B = "/api/2.0/serving-endpoints"
CLOCK = "/_emulator/clock"
FAULTS = "/_emulator/faults"


@pytest.fixture
def start(tmp_path: Path, connect: Connect) -> Callable[[], Any]:
    """Starts an emulator on this test's database file; gives a client of one workspace."""
    settings = Settings(engine="synthetic", database=str(tmp_path / "state.db"))

    @contextmanager
    def start() -> Iterator[httpx.Client]:
        with serve(settings, PausedClock()) as own, connect(own.url, "emu.restart") as client:
            yield client

    return start


def advance(client: httpx.Client, seconds: float) -> None:
    assert client.post(f"{CLOCK}/advance", json={"seconds": seconds}).status_code == 200


def deploy(client: httpx.Client, name: str, entity: Entity) -> None:
    body = {"name": name, "config": {"served_entities": [entity()]}}
    assert client.post(B, json=body).status_code == 200


def everything(client: httpx.Client) -> list[Json]:
    """All that a client can see of the workspace."""
    own = [e["name"] for e in client.get(B).json()["endpoints"] if "id" in e]
    paths = [f"{B}/{name}" for name in own] + [B, FAULTS, CLOCK]
    return [client.get(path).json() for path in paths]


def test_restart_shows_the_same_endpoints_tags_faults_and_clock(
    start: Callable[[], Any], entity: Entity
) -> None:
    with start() as client:
        client.post(B, json={"name": "bare", "tags": [{"key": "a", "value": "ü"}]})
        deploy(client, "up", entity)
        advance(client, 60)
        client.patch(f"{B}/up/tags", json={"add_tags": [{"key": "b"}]})
        client.post(FAULTS, json={"id": "f", "preset": "no-gpu-capacity", "when": {"times": 2}})
        deploy(client, "failed", entity)
        advance(client, 60)
        deploy(client, "waits", entity)
        deploy(client, "loads", entity)
        client.put(f"{B}/up/config", json={"served_entities": [entity(name="new")]})
        advance(client, 1)
        before = everything(client)
        assert len(before) == 5 + 3
    with start() as client:
        assert everything(client) == before


def test_deleted_endpoint_and_removed_fault_stay_away(
    start: Callable[[], Any], entity: Entity
) -> None:
    with start() as client:
        deploy(client, "gone", entity)
        client.post(FAULTS, json={"id": "f", "preset": "no-gpu-capacity"})
        client.delete(f"{B}/gone")
        client.delete(f"{FAULTS}/f")
    with start() as client:
        advance(client, 60)
        assert client.get(f"{B}/gone").status_code == 404
        assert client.get(FAULTS).json() == {"faults": []}


def test_deployments_under_way_settle_after_a_restart_and_settled_ones_stay(
    start: Callable[[], Any], entity: Entity
) -> None:
    with start() as client:
        deploy(client, "up", entity)
        client.post(FAULTS, json={"preset": "no-gpu-capacity", "when": {"times": 2}})
        deploy(client, "failed", entity)
        advance(client, 29)
        failed = client.get(f"{B}/failed").json()
        deploy(client, "waits", entity)
        deploy(client, "comes", entity)
        client.put(f"{B}/up/config", json={"served_entities": [entity(name="new")]})
        advance(client, 1)
    with start() as client:
        advance(client, 0.5)
        assert states(client) == {
            "up": ("READY", "NOT_UPDATING", 2, None),
            "failed": ("NOT_READY", "UPDATE_FAILED", None, 1),
            "waits": ("NOT_READY", "IN_PROGRESS", None, 1),
            "comes": ("READY", "NOT_UPDATING", 1, None),
        }
        advance(client, 27.5)
        assert states(client)["waits"] == ("NOT_READY", "UPDATE_FAILED", None, 1)
        assert client.get(f"{B}/failed").json() == failed


def states(client: httpx.Client) -> dict[str, tuple[str, str, int | None, int | None]]:
    """ready, config_update, version of `config`, version of `pending_config`, by endpoint."""
    names = [e["name"] for e in client.get(B).json()["endpoints"] if "id" in e]
    found = [client.get(f"{B}/{name}").json() for name in names]
    return {
        endpoint["name"]: (
            endpoint["state"]["ready"],
            endpoint["state"]["config_update"],
            endpoint.get("config", {}).get("config_version"),
            endpoint.get("pending_config", {}).get("config_version"),
        )
        for endpoint in found
    }


@contextmanager
def process(
    database: Path, connect: Connect
) -> Iterator[tuple[httpx.Client, subprocess.Popen[str]]]:
    """`servemu up` with the real durations: nothing settles unless the clock is advanced."""
    options = f"--engine synthetic --port 0 --speedup 1 --database {database}".split()
    command = [sys.executable, "-m", "servemu", "up", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            ready = running.stdout.readline()
            with connect(ready.split()[-1], "emu.killed") as client:
                yield client, running
        finally:
            running.kill()


def test_deployments_survive_kill_9_and_settle(
    tmp_path: Path, connect: Connect, entity: Entity
) -> None:
    database = tmp_path / "state.db"
    with process(database, connect) as (client, running):
        deploy(client, "updating", entity)
        client.post(FAULTS, json={"preset": "no-gpu-capacity", "when": {"times": 2}})
        deploy(client, "failed", entity)
        advance(client, 1740)
        deploy(client, "no-gpu", entity)
        deploy(client, "creating", entity)
        deploy(client, "deleted", entity)
        client.put(f"{B}/updating/config", json={"served_entities": [entity(name="new")]})
        client.post(f"{FAULTS}", json={"id": "kept", "preset": "no-gpu-capacity"})
        client.delete(f"{B}/deleted")
        before = {name: client.get(f"{B}/{name}").json() for name in states(client)}
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
    with process(database, connect) as (client, running):
        assert {name: client.get(f"{B}/{name}").json() for name in states(client)} == before
        advance(client, 1740)
        assert states(client) == {
            "updating": ("READY", "NOT_UPDATING", 2, None),
            "failed": ("NOT_READY", "UPDATE_FAILED", None, 1),
            "no-gpu": ("NOT_READY", "UPDATE_FAILED", None, 1),
            "creating": ("READY", "NOT_UPDATING", 1, None),
        }
        assert client.get(f"{B}/failed").json() == before["failed"]
        assert client.get(f"{FAULTS}/kept").json()["fired"] == 0
