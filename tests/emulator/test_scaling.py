"""Autoscaling over HTTP: replicas follow the load on the workspace's clock."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from servemu.app import create_app
from servemu.clock import PausedClock
from servemu.settings import Settings
from servemu.wiring import build_world
from servemu.world import World

pytestmark = pytest.mark.anyio

Json = dict[str, Any]

B = "/api/2.0/serving-endpoints"
CHUNK = 1580
ENTITY: Json = {
    "entity_name": "ml.llm-catalog.foundation-model",
    "entity_version": "3",
    "min_provisioned_throughput": CHUNK,
    "max_provisioned_throughput": 3 * CHUNK,
}
NAME = "foundation-model-3"
UP = 2.0
"""Seconds of the workspace's clock: `scale_up_seconds` over the speedup of 60."""
DOWN = 5.0
LOOK = 0.25
WINDOW = 1.0
LONG = {"messages": [{"role": "user", "content": "tell " * 2000}], "max_tokens": 4000}


class Rig:
    """An emulator in this event loop, with an endpoint `e` of one to three chunks."""

    def __init__(self, **settings: Any) -> None:
        self.world: World = build_world(Settings(engine="synthetic", **settings), PausedClock())
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(self.world)),
            base_url="http://servemu",
            headers={"Authorization": "Bearer t"},
            verify=False,
        )
        self.asked: list[asyncio.Task[httpx.Response]] = []

    async def create(self, **fields: object) -> None:
        entity = ENTITY | fields
        answer = await self.client.post(
            B, json={"name": "e", "config": {"served_entities": [entity]}}
        )
        assert answer.status_code == 200, answer.text
        await self.advance(2)

    async def advance(self, seconds: float) -> None:
        await self.client.post("/_emulator/clock/advance", json={"seconds": seconds})

    async def load(self, requests: int = 4) -> None:
        """More than a replica does in the next seconds: requests that wait and run."""
        for _ in range(requests):
            query = self.client.post("/serving-endpoints/e/invocations", json=LONG)
            self.asked.append(asyncio.create_task(query))
        while self.budget.in_flight < requests:
            await asyncio.sleep(0)

    async def stop(self) -> None:
        for task in self.asked:
            task.cancel()
        await asyncio.gather(*self.asked, return_exceptions=True)
        self.asked.clear()

    async def close(self) -> None:
        await self.stop()
        await self.client.aclose()
        self.world.residents.close()
        self.world.db.close()

    @property
    def budget(self) -> Any:
        endpoint = self.world.deployments.get("default", "e")
        assert endpoint.active is not None
        entity = endpoint.active.entities[0]
        model = self.world.lookup.of(entity)
        assert model is not None
        return self.world.router.budgets.of(endpoint, entity, model)

    @property
    def replicas(self) -> tuple[int, int]:
        """Serving and starting."""
        endpoint = self.world.deployments.get("default", "e")
        assert endpoint.active is not None
        entity = endpoint.active.entities[0]
        model = self.world.lookup.of(entity)
        assert model is not None
        shown = self.world.router.scaling.replicas(endpoint, entity, model)
        assert shown is not None and (shown.minimum, shown.maximum) == (1, 3)
        assert shown.current == 0 or self.budget.rate == shown.current * CHUNK
        return shown.current, shown.starting

    @property
    def is_waking(self) -> bool:
        endpoint = self.world.deployments.get("default", "e")
        return endpoint.active is not None and endpoint.active.due_at is not None

    async def events(self) -> list[str]:
        answer = await self.client.get(f"{B}/e/events")
        told = [event["message"] for event in reversed(answer.json()["events"])]
        return [text.partition(": ")[2] for text in told if "cale" in text]


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    await rig.create()
    yield rig
    await rig.close()


async def test_an_endpoint_starts_at_its_minimum_and_is_not_looked_at_without_load(
    rig: Rig,
) -> None:
    assert rig.replicas == (1, 0)
    assert rig.world.router.scaling.first() is None
    await rig.advance(365 * 86400)
    assert (rig.replicas, await rig.events()) == ((1, 0), [])


async def test_replicas_come_after_the_familys_delay_and_go_after_quiet_time(rig: Rig) -> None:
    await rig.load()
    await rig.advance(LOOK)
    current, starting = rig.replicas
    assert (current, starting > 0) == (1, True)
    await rig.advance(UP - 0.01)
    assert rig.replicas[0] == 1
    await rig.advance(0.01)
    assert rig.replicas[0] == 1 + starting
    await rig.advance(10 * UP)
    await rig.advance(10 * UP)
    assert rig.replicas == (3, 0)
    await rig.stop()
    await rig.advance(DOWN - 0.01)
    assert rig.replicas == (3, 0)
    await rig.advance(WINDOW + LOOK + DOWN)
    assert rig.replicas == (1, 0)
    assert rig.world.router.scaling.first() is None
    told = await rig.events()
    assert (
        told[0].startswith("Scaled up from 1 to ") and told[-1] == "Scaled down from 3 to 1 replica"
    )


async def test_a_year_at_once_under_load_brings_all_replicas_and_takes_few_looks(rig: Rig) -> None:
    await rig.load()
    await rig.advance(365 * 86400)
    await rig.advance(365 * 86400)
    assert rig.replicas == (3, 0)
    assert len(await rig.events()) <= 2


async def test_the_wire_shows_a_scaled_entity_as_any_other(rig: Rig) -> None:
    before = (await rig.client.get(f"{B}/e")).json()
    await rig.load()
    await rig.advance(10 * UP)
    assert rig.replicas[0] > 1
    assert (await rig.client.get(f"{B}/e")).json() == before


async def test_the_gpu_pool_stops_a_scale_up_short() -> None:
    rig = Rig(capacity={"GPU_XLARGE_8": 2})
    await rig.create()
    await rig.load()
    for _ in range(3):
        await rig.advance(10 * UP)
    assert rig.replicas == (2, 0)
    assert await rig.events() == [
        "Scale-up stops at 2 replicas: no GPU_XLARGE_8 capacity",
        "Scaled up from 1 to 2 replicas",
    ]
    await rig.close()


async def test_without_autoscaling_an_endpoint_stands_at_its_maximum() -> None:
    rig = Rig(autoscaling=False)
    await rig.create()
    assert rig.replicas == (3, 0)
    await rig.load()
    assert rig.world.router.scaling.first() is None
    await rig.close()


async def test_replicas_survive_a_restart_and_go_without_another_request(tmp_path: Path) -> None:
    file = str(tmp_path / "state.db")
    rig = Rig(database=file)
    await rig.create()
    await rig.load()
    await rig.advance(10 * UP)
    await rig.advance(10 * UP)
    assert rig.replicas == (3, 0)
    await rig.close()
    again = Rig(database=file)
    assert again.replicas == (3, 0)
    await again.advance(LOOK + WINDOW + DOWN + 1)
    assert again.replicas == (1, 0)
    await again.close()


async def test_replicas_come_back_with_a_snapshot_and_go_without_a_request(rig: Rig) -> None:
    await rig.load()
    await rig.advance(10 * UP)
    await rig.stop()
    up, _ = rig.replicas
    assert up > 1
    await rig.client.post("/_emulator/snapshots/up")
    await rig.advance(60)
    assert rig.replicas == (1, 0)
    answer = await rig.client.post("/_emulator/snapshots/up/restore")
    assert answer.status_code == 200, answer.text
    assert rig.replicas == (up, 0)
    await rig.advance(LOOK + WINDOW + DOWN + 1)
    assert rig.replicas == (1, 0)


async def test_scaled_to_zero_after_the_minimum_and_a_request_is_held_through_the_cold_start() -> (
    None
):
    rig = Rig()
    await rig.create(min_provisioned_throughput=0, scale_to_zero_enabled=True)
    await rig.load()
    await rig.advance(10 * UP)
    assert rig.replicas[0] > 1
    await rig.stop()
    await rig.advance(60)
    assert rig.replicas == (0, 0)
    assert (await rig.events())[-2:] == ["Scaled down from 3 to 1 replica", "Scaled to zero"]
    ask = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    held = asyncio.create_task(rig.client.post("/serving-endpoints/e/invocations", json=ask))
    while not rig.is_waking:
        await asyncio.sleep(0)
    model = rig.world.catalog.models[ENTITY["entity_name"]]
    cold_start = model.family.cold_start_seconds / 60
    await rig.advance(cold_start - 0.01)
    assert not held.done()
    await rig.advance(0.01)
    assert (await asyncio.wait_for(held, 5)).status_code == 200
    assert rig.replicas == (1, 0)
    await rig.close()


@pytest.mark.parametrize("change", ["delete", "update"])
async def test_an_endpoint_that_changes_under_load_is_let_go(rig: Rig, change: str) -> None:
    await rig.load()
    await rig.advance(10 * UP)
    await rig.stop()
    changes: dict[str, Callable[[], Any]] = {
        "delete": lambda: rig.client.delete(f"{B}/e"),
        "update": lambda: rig.client.put(f"{B}/e/config", json={"served_entities": [ENTITY]}),
    }
    assert (await changes[change]()).status_code == 200
    await rig.advance(60)
    assert rig.world.router.scaling.first() is None
    if change == "update":
        assert rig.replicas == (1, 0)
