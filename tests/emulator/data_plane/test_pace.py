"""The pace of the played model, and the time limit of a request; on a clock stepped by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.applications import Starlette

from servemu.throughput.budget import TokenBudget
from servemu.throughput.pace import Pace, Paced, load_of
from servemu.throughput.terms import Bounds, Terms
from servemu_engine.base import Chunk

if TYPE_CHECKING:
    from tests.emulator.data_plane.conftest import Plane, ScriptedEngine, SteppedClock

pytestmark = pytest.mark.anyio

PACE = Pace(ttft=0.2, prefill_share=0.75, tpot=0.01, load_factor=0.3)
HI = {"messages": [{"role": "user", "content": "Hi"}]}
TINY = 1e-6


@pytest.mark.parametrize(
    ("prompt", "load", "seconds"),
    [(0, 0.0, 0.05), (3500, 0.0, 0.2), (7000, 0.0, 0.35), (3500, 1.0, 0.26), (3500, 9.0, 0.26)],
)
def test_first_token_grows_with_the_prompt_and_the_load(
    prompt: int, load: float, seconds: float
) -> None:
    assert PACE.first(prompt, load) == pytest.approx(seconds)


@pytest.mark.parametrize(("load", "seconds"), [(0.0, 0.1), (0.5, 0.115), (1.0, 0.13), (-1, 0.1)])
def test_further_tokens_slow_down_with_the_load(load: float, seconds: float) -> None:
    assert PACE.further(10, load) == pytest.approx(seconds)


def test_load_is_the_share_of_the_budget_that_the_others_would_take(
    stepped_clock: SteppedClock,
) -> None:
    budget = TokenBudget(1000.0, stepped_clock)
    budget.in_flight = 6
    assert load_of(budget, PACE) == pytest.approx(5 * 100 / 1000)
    assert load_of(TokenBudget(None, stepped_clock), PACE) == 0.0
    assert load_of(budget, replace(PACE, tpot=0.0)) == 0.0


async def _ends_at(clock: SteppedClock, work: Coroutine[Any, Any, Any], seconds: float) -> Any:
    """The result, which is there at that time and not before."""
    running = asyncio.ensure_future(work)
    await clock.run(seconds - TINY)
    assert not running.done()
    await clock.run(seconds + TINY)
    assert running.done()
    return running.result()


async def test_who_is_held_up_by_the_budget_does_not_catch_up(stepped_clock: SteppedClock) -> None:
    paced = Paced(PACE, TokenBudget(None, stepped_clock), stepped_clock, 0.0)

    async def answer() -> None:
        await paced.first(3500)
        await paced.token((0, 0), 1)
        await stepped_clock.sleep_until(5.0)
        await paced.token((0, 0), 1)
        await paced.token((0, 0), 1)

    await _ends_at(stepped_clock, answer(), 5.0 + 0.01)


async def test_texts_of_one_request_keep_their_own_time(stepped_clock: SteppedClock) -> None:
    paced = Paced(PACE, TokenBudget(None, stepped_clock), stepped_clock, 0.0)

    async def answer() -> None:
        await paced.first(3500)
        for _ in range(11):
            await paced.token((0, 0), 1)
            await paced.token((0, 1), 1)

    await _ends_at(stepped_clock, answer(), 0.2 + 10 * 0.01)


@asynccontextmanager
async def _client(
    plane_app: tuple[Starlette, str], plane: Plane, clock: SteppedClock
) -> AsyncIterator[httpx.AsyncClient]:
    """HTTP in this event loop, on this clock."""
    plane.clock = clock
    transport = httpx.ASGITransport(app=plane_app[0])
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("tokens", "seconds"), [(1, 0.2), (5, 0.24), (101, 1.2)])
async def test_answer_over_http_takes_ttft_and_tpot(
    plane_app: tuple[Starlette, str],
    plane: Plane,
    scripted: type[ScriptedEngine],
    stepped_clock: SteppedClock,
    tokens: int,
    seconds: float,
    stream: bool,
) -> None:
    script = [Chunk(0, "a", 1) for _ in range(tokens - 1)]
    engine = scripted([*script, Chunk(0, "a", 1, finish_reason="length")])
    engine.num_prompt_tokens = 3500
    budget = TokenBudget(1e6, stepped_clock)
    served = plane.add_limited("e", "llm/v1/chat", engine, budget)
    plane._served["e"] = replace(served, pace=PACE)
    async with _client(plane_app, plane, stepped_clock) as client:
        asking = client.post("/serving-endpoints/e/invocations", json=HI | {"stream": stream})
        answer = await _ends_at(stepped_clock, asking, seconds)
    assert answer.status_code == 200, answer.text
    assert budget.meter.window(stepped_clock.monotonic(), 60.0).demand < 0.05  # it only paced


async def test_request_over_its_time_is_a_408_and_frees_its_place(
    plane_app: tuple[Starlette, str],
    plane: Plane,
    scripted: type[ScriptedEngine],
    stepped_clock: SteppedClock,
    hello: list[Chunk],
) -> None:
    budget = TokenBudget(1000.0, stepped_clock, Terms(bounds=Bounds(in_flight=1)))
    engine = scripted(hello[:1], hangs=True)
    plane.add_limited("e", "llm/v1/chat", engine, budget)
    async with _client(plane_app, plane, stepped_clock) as client:
        path = "/serving-endpoints/e/invocations"
        first = asyncio.ensure_future(client.post(path, json=HI))
        await stepped_clock.run(30.0)
        refused = await client.post(path, json=HI)
        assert refused.status_code == 429
        answer = await _ends_at(stepped_clock, asyncio.wait_for(first, None), 60.0)
        assert answer.status_code == 408
        assert answer.json() == {"error_code": "REQUEST_TIMEOUT", "message": "Request timed out."}
        assert (budget.in_flight, budget.meter.demanding, budget.meter.prefilling) == (0, 0, 0)
        assert engine.left.is_set()
        engine.script, engine.hangs = hello, False
        asking = asyncio.ensure_future(client.post(path, json=HI))
        await stepped_clock.run(61.0)
        assert asking.result().status_code == 200


async def test_request_that_waits_for_its_turn_too_long_leaves_the_queue(
    plane_app: tuple[Starlette, str],
    plane: Plane,
    scripted: type[ScriptedEngine],
    stepped_clock: SteppedClock,
    hello: list[Chunk],
) -> None:
    budget = TokenBudget(10.0, stepped_clock)
    engine = scripted(hello)
    engine.num_prompt_tokens = 1000  # 100 s; the limit is 60
    plane.add_limited("e", "llm/v1/chat", engine, budget)
    async with _client(plane_app, plane, stepped_clock) as client:
        asking = client.post("/serving-endpoints/e/invocations", json=HI)
        answer = await _ends_at(stepped_clock, asking, 60.0)
    assert answer.status_code == 408
    assert budget.queue is not None and budget.queue.is_idle
    assert budget.queue.waiting_tokens == 0.0
