"""How an endpoint comes up, changes, fails and goes: the table of facts/control_plane §3."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from servemu.catalog import CatalogModel
from servemu.clock import PausedClock
from servemu.residents import Build
from servemu.settings import Settings
from servemu.testing import Emulator, serve
from servemu.wiring import build_world
from servemu_engine.base import Embedder, Engine
from servemu_engine.errors import LoadFailed
from servemu_engine.synthetic import SyntheticEngine
from servemu_state.errors import DatabaseUnavailable

Json = dict[str, Any]
Create = Callable[..., Json]
Get = Callable[..., Json]
Advance = Callable[[float], None]
Entity = Callable[..., Json]
Connect = Callable[..., httpx.Client]

B = "/api/2.0/serving-endpoints"
CLOCK = "/_emulator/clock/advance"
LIMIT = 20
"""Seconds after which a thread counts as hanging; never waited for."""


def settings(**catalog: object) -> Settings:
    return Settings(engine="synthetic", catalog=catalog)


def outline(endpoint: Json) -> tuple[str, str, int | None, int | None]:
    """ready, config_update, config_version of `config` and of `pending_config` (None: absent)."""
    return (
        endpoint["state"]["ready"],
        endpoint["state"]["config_update"],
        endpoint.get("config", {}).get("config_version"),
        endpoint.get("pending_config", {}).get("config_version"),
    )


def entity_states(config: Json) -> list[tuple[str, str]]:
    return [
        (served["state"]["deployment"], served["state"]["deployment_state_message"])
        for served in config["served_entities"]
    ]


def test_stages_follow_each_other_with_the_real_messages(
    create: Create, advance: Advance, get: Get
) -> None:
    seen = [entity_states(create()["pending_config"])]
    for seconds in (0.25, 0.25, 0.75):
        advance(seconds)
        seen.append(entity_states(get()["pending_config"]))
    advance(0.25)
    seen.append(entity_states(get()["config"]))
    assert seen == [
        [("DEPLOYMENT_CREATING", "Creating resources for served entity.")],
        [("DEPLOYMENT_CREATING", "Creating resources for served entity.")],
        [("DEPLOYMENT_CREATING", "Deploying served entities")],
        [("DEPLOYMENT_CREATING", "Deploying served entities")],
        [("DEPLOYMENT_READY", "")],
    ]


def test_one_long_step_of_the_clock_walks_through_all_stages(
    create: Create, advance: Advance, get: Get
) -> None:
    create()
    advance(86400)
    assert outline(get()) == ("READY", "NOT_UPDATING", 1, None)


def test_deployment_is_as_slow_as_its_slowest_entity(
    workspace: httpx.Client, entity: Entity, advance: Advance, get: Get
) -> None:
    slow = entity(name="b", entity_name="system.ai.llama_v3_3_70b_instruct", entity_version="1")
    routes = [{"served_entity_name": "b", "traffic_percentage": 100}]
    config = {"served_entities": [entity(), slow], "traffic_config": {"routes": routes}}
    workspace.post(B, json={"name": "llama", "config": config})
    advance(1.5)
    assert outline(get()) == ("NOT_READY", "IN_PROGRESS", None, 1)
    advance(3.5)
    assert outline(get()) == ("READY", "NOT_UPDATING", 1, None)


def test_update_keeps_the_old_config_serving_until_the_new_one_is_up(
    workspace: httpx.Client, create: Create, advance: Advance, entity: Entity, get: Get
) -> None:
    create()
    advance(1.5)
    workspace.put(f"{B}/llama/config", json={"served_entities": [entity(name="new")]})
    assert outline(get()) == ("READY", "IN_PROGRESS", 1, 2)
    assert entity_states(get()["config"]) == [("DEPLOYMENT_READY", "")]
    advance(1.0)
    assert outline(get()) == ("READY", "IN_PROGRESS", 1, 2)
    advance(0.5)
    assert outline(get()) == ("READY", "NOT_UPDATING", 2, None)
    assert get()["config"]["served_entities"][0]["name"] == "new"


def test_update_during_an_update_is_refused_and_changes_nothing(
    workspace: httpx.Client, create: Create, entity: Entity, get: Get
) -> None:
    before = create()
    refused = workspace.put(f"{B}/llama/config", json={"served_entities": [entity(name="b")]})
    assert refused.status_code == 409
    assert get() == before


def test_update_of_a_failed_endpoint_is_accepted_with_the_next_version(
    workspace: httpx.Client, create: Create, advance: Advance, entity: Entity, get: Get
) -> None:
    workspace.post("/_emulator/faults", json={"preset": "no-gpu-capacity", "when": {"times": 1}})
    create()
    advance(29)
    assert outline(get()) == ("NOT_READY", "UPDATE_FAILED", None, 1)
    again = workspace.put(f"{B}/llama/config", json={"served_entities": [entity()]})
    assert outline(again.json()) == ("NOT_READY", "IN_PROGRESS", None, 2)
    advance(1.5)
    assert outline(get()) == ("READY", "NOT_UPDATING", 2, None)


def test_failed_endpoint_can_be_deleted(
    workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    workspace.post("/_emulator/faults", json={"preset": "no-gpu-capacity"})
    create()
    advance(29)
    assert workspace.delete(f"{B}/llama").status_code == 200
    assert workspace.get(f"{B}/llama").status_code == 404


def test_delete_during_an_update_is_final(
    workspace: httpx.Client, create: Create, advance: Advance, entity: Entity
) -> None:
    create()
    advance(1.5)
    workspace.put(f"{B}/llama/config", json={"served_entities": [entity()]})
    assert workspace.delete(f"{B}/llama").status_code == 200
    advance(60)
    assert workspace.get(f"{B}/llama").status_code == 404


def test_recreated_endpoint_does_not_inherit_the_deployment_of_the_deleted_one(
    workspace: httpx.Client, create: Create, advance: Advance, get: Get
) -> None:
    create()
    advance(1.0)
    workspace.delete(f"{B}/llama")
    create()
    advance(0.5)
    assert outline(get()) == ("NOT_READY", "IN_PROGRESS", None, 1)
    advance(1.0)
    assert outline(get()) == ("READY", "NOT_UPDATING", 1, None)


def test_last_updated_moves_with_every_change_and_not_between(
    workspace: httpx.Client, create: Create, advance: Advance, entity: Entity, get: Get
) -> None:
    seen = [create()["last_updated_timestamp"]]
    advance(1.0)
    seen.append(get()["last_updated_timestamp"])
    advance(9.0)
    seen.append(get()["last_updated_timestamp"])
    workspace.patch(f"{B}/llama/tags", json={"add_tags": [{"key": "a"}]})
    advance(10.0)
    seen.append(get()["last_updated_timestamp"])
    workspace.put(f"{B}/llama/config", json={"served_entities": [entity()]})
    seen.append(get()["last_updated_timestamp"])
    start = seen[0]
    assert [at - start for at in seen] == [0, 0, 1_000, 10_000, 20_000]


class HeldEngine(SyntheticEngine):
    """Its weights load until `release`."""

    def __init__(self) -> None:
        super().__init__("held")
        self.entered = threading.Event()
        self.release = threading.Event()

    def start(self) -> None:
        self.entered.set()
        assert self.release.wait(LIMIT)


@contextmanager
def in_thread(work: Callable[[], object]) -> Iterator[threading.Thread]:
    """The work goes on beside the block, which it must have outlived neither way."""
    thread = threading.Thread(target=work)
    thread.start()
    yield thread
    thread.join(LIMIT)
    assert not thread.is_alive()


@pytest.fixture
def held() -> Iterator[tuple[Emulator, HeldEngine]]:
    """An emulator of its own whose 70B loads until the test lets it; an 8B comes up at once."""
    engine = HeldEngine()

    def build(model: CatalogModel) -> Engine | Embedder:
        return engine if model.family.stand_in == "held" else SyntheticEngine("m")

    slow = settings(families={"llama-70b": {"stand_in": "held"}})
    with serve(slow, PausedClock(), build) as emulator:
        yield emulator, engine
        engine.release.set()


SLOW = {"entity_name": "system.ai.llama_v3_3_70b_instruct", "entity_version": "1"}


def test_endpoint_is_not_ready_before_its_weights_are_however_late_it_is(
    held: tuple[Emulator, HeldEngine], connect: Connect, entity: Entity
) -> None:
    emulator, engine = held
    with connect(emulator.url, "emu.a") as client, connect(emulator.url, "emu.a") as other:
        config = {"served_entities": [entity(**SLOW)]}
        client.post(B, json={"name": "slow", "config": config})
        with in_thread(lambda: other.post(CLOCK, json={"seconds": 86400})) as advancing:
            assert engine.entered.wait(LIMIT)
            late = client.get(f"{B}/slow").json()
            assert outline(late) == ("NOT_READY", "IN_PROGRESS", None, 1)
            assert entity_states(late["pending_config"]) == [
                ("DEPLOYMENT_CREATING", "Deploying served entities")
            ]
            assert advancing.is_alive()
            engine.release.set()
        assert outline(client.get(f"{B}/slow").json()) == ("READY", "NOT_UPDATING", 1, None)


def test_advance_does_not_wait_for_the_loads_of_other_workspaces(
    held: tuple[Emulator, HeldEngine], connect: Connect, entity: Entity
) -> None:
    emulator, engine = held
    with connect(emulator.url, "emu.a") as slow, connect(emulator.url, "emu.b") as fast:
        slow.post(B, json={"name": "e", "config": {"served_entities": [entity(**SLOW)]}})
        fast.post(B, json={"name": "e", "config": {"served_entities": [entity()]}})
        with in_thread(lambda: slow.post(CLOCK, json={"seconds": 60})):
            assert engine.entered.wait(LIMIT)
            fast.post(CLOCK, json={"seconds": 60})
            assert outline(fast.get(f"{B}/e").json()) == ("READY", "NOT_UPDATING", 1, None)
            engine.release.set()


def test_delete_during_the_load_is_final_and_advance_still_answers(
    held: tuple[Emulator, HeldEngine], connect: Connect, entity: Entity
) -> None:
    emulator, engine = held
    with connect(emulator.url, "emu.a") as client, connect(emulator.url, "emu.a") as other:
        config = {"served_entities": [entity(**SLOW)]}
        client.post(B, json={"name": "slow", "config": config})
        with in_thread(lambda: other.post(CLOCK, json={"seconds": 60})):
            assert engine.entered.wait(LIMIT)
            assert client.delete(f"{B}/slow").status_code == 200
            engine.release.set()
        assert client.get(f"{B}/slow").status_code == 404


def failing(error: Exception) -> Build:
    """Engines of which the one of the stand-in `broken` does not load."""

    class Broken(SyntheticEngine):
        def start(self) -> None:
            raise error

    def build(model: CatalogModel) -> Engine | Embedder:
        return Broken("m") if model.family.stand_in == "broken" else SyntheticEngine("m")

    return build


NO_WEIGHTS = "Model server failed to load the model. No weights."
BUG = (
    "Model server failed to load the model. An error occurred in model loading code: "
    "ValueError: bug"
)


@pytest.mark.parametrize(
    ("error", "message"), [(LoadFailed("No weights."), NO_WEIGHTS), (ValueError("bug"), BUG)]
)
def test_load_failure_fails_its_entity_and_aborts_the_others(
    connect: Connect, entity: Entity, error: Exception, message: str
) -> None:
    broken = settings(families={"llama-70b": {"stand_in": "broken"}})
    with serve(broken, PausedClock(), failing(error)) as own, connect(own.url) as client:
        config = {
            "served_entities": [entity(name="good"), entity(name="bad", **SLOW)],
            "traffic_config": {
                "routes": [{"served_entity_name": "good", "traffic_percentage": 100}]
            },
        }
        client.post(B, json={"name": "e", "config": config})
        client.post(CLOCK, json={"seconds": 60})
        failed = client.get(f"{B}/e").json()
        client.post(B, json={"name": "after", "config": {"served_entities": [entity()]}})
        client.post(CLOCK, json={"seconds": 60})
        assert client.get(f"{B}/after").json()["state"]["ready"] == "READY"
    assert outline(failed) == ("NOT_READY", "UPDATE_FAILED", None, 1)
    aborted = (
        "Served entity creation aborted because another served entity of the same config failed."
    )
    assert entity_states(failed["pending_config"]) == [
        ("DEPLOYMENT_ABORTED", aborted),
        ("DEPLOYMENT_FAILED", message),
    ]


def test_load_failure_of_an_update_keeps_the_old_config_and_the_failed_one(
    connect: Connect, entity: Entity
) -> None:
    broken = settings(families={"llama-70b": {"stand_in": "broken"}})
    build = failing(LoadFailed("No weights."))
    with serve(broken, PausedClock(), build) as own, connect(own.url) as client:
        client.post(B, json={"name": "e", "config": {"served_entities": [entity()]}})
        client.post(CLOCK, json={"seconds": 60})
        client.put(f"{B}/e/config", json={"served_entities": [entity(**SLOW)]})
        client.post(CLOCK, json={"seconds": 60})
        failed = client.get(f"{B}/e").json()
    assert outline(failed) == ("READY", "UPDATE_FAILED", 1, 2)
    assert entity_states(failed["config"]) == [("DEPLOYMENT_READY", "")]
    assert entity_states(failed["pending_config"]) == [("DEPLOYMENT_FAILED", NO_WEIGHTS)]


class RecordingClock(PausedClock):
    """Keeps until when the reconciler sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self.until: float | None = None

    async def wait(self, event: asyncio.Event, until: float | None) -> None:
        self.until = until
        await super().wait(event, until)


def test_moving_the_clock_brings_the_next_due_time_nearer(connect: Connect, entity: Entity) -> None:
    clock = RecordingClock()
    with serve(settings(), clock) as own, connect(own.url) as client:
        client.post(B, json={"name": "e", "config": {"served_entities": [entity()]}})
        client.post(CLOCK, json={"seconds": 0.25})
        client.get(f"{B}/e")
        assert clock.until == clock.now() + 0.25


@pytest.mark.anyio
async def test_deployments_go_on_after_the_state_could_not_be_written(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = build_world(settings(), PausedClock())
    steps = 0

    def full_disk() -> None:
        nonlocal steps
        steps += 1
        raise DatabaseUnavailable("a.db", "database or disk is full")

    monkeypatch.setattr(world.reconciler, "step", full_disk)
    running = asyncio.create_task(world.reconciler.run())
    for wanted in (1, 2):
        world.deployments.changed.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert (steps, running.done()) == (wanted, False)
    assert "deployments stand still" in caplog.text
    running.cancel()
    await asyncio.wait([running])
    world.db.close()
