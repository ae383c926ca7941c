"""Requests to an endpoint that is scaled to zero: held while it wakes (facts/control_plane §3)."""

import asyncio
from collections.abc import AsyncIterator
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

from servemu.app import create_app
from servemu.clock import PausedClock
from servemu.settings import Settings
from servemu.wiring import build_world
from servemu.world import World
from servemu_state.records import Endpoint

Json = dict[str, Any]


@pytest.fixture
def world() -> World:
    return build_world(Settings(engine="synthetic"), PausedClock())


@pytest.fixture
async def asleep(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """A client in the same event loop, and the endpoint `own`, scaled to zero."""
    transport = httpx.ASGITransport(create_app(world))
    headers = {"Authorization": "Bearer t"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://servemu", headers=headers, verify=False
    ) as client:
        body = {"name": "own", "config": {"served_entities": [SLEEPER]}}
        await client.post(B, json=body)
        for seconds in (UP, IDLE):
            await advance_by(client, seconds)
        assert entity_of((await client.get(f"{B}/own")).json()) == ASLEEP
        yield client
    world.residents.close()
    world.db.close()


async def advance_by(client: httpx.AsyncClient, seconds: float) -> None:
    await client.post("/_emulator/clock/advance", json={"seconds": seconds})


def is_waking(endpoint: Endpoint) -> bool:
    return endpoint.active is not None and endpoint.active.due_at is not None


async def ask(client: httpx.AsyncClient, world: World) -> "asyncio.Task[httpx.Response]":
    """A request on its way, which waits for the endpoint to wake."""
    task = asyncio.create_task(client.post(QUERY, json=ASKED))
    while not is_waking(world.deployments.get("default", "own")):
        await asyncio.sleep(0)
    return task


def waking_seconds(world: World) -> float:
    return world.catalog.models[CUSTOM["entity_name"]].family.cold_start_seconds / 60  # type: ignore[index]


@pytest.mark.anyio
async def test_request_is_held_while_the_endpoint_wakes(
    world: World, asleep: httpx.AsyncClient
) -> None:
    task = await ask(asleep, world)
    await advance_by(asleep, waking_seconds(world) - 0.1)
    shown = (await asleep.get(f"{B}/own")).json()
    assert (task.done(), outline(shown), entity_of(shown)) == (False, READY, ASLEEP)
    await advance_by(asleep, 0.1)
    assert (await task).status_code == 200
    assert entity_of((await asleep.get(f"{B}/own")).json()) == AWAKE
    await advance_by(asleep, IDLE)
    assert entity_of((await asleep.get(f"{B}/own")).json()) == ASLEEP


@pytest.mark.anyio
async def test_all_held_requests_are_answered_by_one_waking(
    world: World, asleep: httpx.AsyncClient
) -> None:
    tasks = [await ask(asleep, world) for _ in range(5)]
    await advance_by(asleep, waking_seconds(world))
    assert [(await task).status_code for task in tasks] == [200] * 5


@pytest.mark.anyio
async def test_held_request_is_answered_though_one_advance_passes_the_next_idle_time_too(
    world: World, asleep: httpx.AsyncClient
) -> None:
    task = await ask(asleep, world)
    await advance_by(asleep, waking_seconds(world) + 2 * IDLE)
    for _ in range(20):
        await asyncio.sleep(0)
    assert entity_of((await asleep.get(f"{B}/own")).json()) == AWAKE
    assert (await asyncio.wait_for(task, timeout=5)).status_code == 200


@pytest.mark.anyio
async def test_held_request_times_out_and_the_endpoint_wakes_all_the_same(
    world: World, asleep: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(deadline: float) -> None:
        """No patience."""

    monkeypatch.setattr(world.clock, "sleep_until", at_once)
    answer = await asleep.post(QUERY, json=ASKED)
    body = {"error_code": "REQUEST_TIMEOUT", "message": "Request timed out."}
    assert (answer.status_code, answer.json()) == (408, body)
    await advance_by(asleep, waking_seconds(world))
    assert entity_of((await asleep.get(f"{B}/own")).json()) == AWAKE


@pytest.mark.anyio
@pytest.mark.parametrize(("change", "status"), [("stop", 400), ("delete", 404), ("update", 200)])
async def test_held_request_sees_what_became_of_the_endpoint(
    world: World, asleep: httpx.AsyncClient, change: str, status: int
) -> None:
    task = await ask(asleep, world)
    if change == "stop":
        await asleep.post(f"{B}/own/config:stop")
    elif change == "delete":
        await asleep.delete(f"{B}/own")
    else:
        await asleep.put(f"{B}/own/config", json={"served_entities": [CUSTOM]})
        await advance_by(asleep, UP)
    assert (await task).status_code == status


@pytest.mark.anyio
async def test_one_advance_of_a_year_deploys_and_scales_to_zero_each_at_its_time(
    world: World,
) -> None:
    transport = httpx.ASGITransport(create_app(world))
    headers = {"Authorization": "Bearer t"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://servemu", headers=headers, verify=False
    ) as client:
        body = {"name": "own", "config": {"served_entities": [SLEEPER]}}
        began = (await client.post(B, json=body)).json()["creation_timestamp"] / 1000
        await advance_by(client, 365 * 24 * 3600)
        assert entity_of((await client.get(f"{B}/own")).json()) == ASLEEP
    endpoint = world.deployments.get("default", "own")
    assert endpoint.updated_at - began == pytest.approx(UP, abs=0.6)
    times = [event.at - began for event in world.deployments.history_of(endpoint, 100)]
    assert max(times) == pytest.approx(endpoint.updated_at - began + IDLE)
    world.residents.close()
    world.db.close()
