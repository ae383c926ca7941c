"""The queue before the token budget: who waits, who is turned away, and what leavers give back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from servemu.errors import RequestLimitExceeded
from servemu.serving import Served
from servemu.throughput import admission
from servemu.throughput.budget import TokenBudget

if TYPE_CHECKING:
    from tests.emulator.data_plane.conftest import Plane, ScriptedEngine, SteppedClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def served(
    make_plane: Callable[[], Plane], scripted: type[ScriptedEngine], stepped_clock: SteppedClock
) -> Served:
    """An endpoint of 100 tokens/s where nobody waits longer than 10 s."""
    budget = TokenBudget(100.0, stepped_clock, burst_seconds=0.0, max_wait=10.0)
    return make_plane().add_limited("e", "llm/v1/chat", scripted([]), budget)


async def _come(served: Served, tokens: int) -> None:
    async with admission.enter(served, tokens):
        pass


async def test_prompts_are_paid_one_after_the_other(
    served: Served, stepped_clock: SteppedClock
) -> None:
    first, second = (asyncio.ensure_future(_come(served, tokens)) for tokens in (100, 200))
    await stepped_clock.run(0.99)
    assert not first.done()
    await stepped_clock.run(2.99)
    assert first.done() and not second.done()
    await stepped_clock.run(3.01)
    assert second.done()
    assert served.budget.paid == 300


async def test_running_streams_keep_moving_while_a_long_prompt_is_paid(
    served: Served, stepped_clock: SteppedClock
) -> None:
    coming = asyncio.ensure_future(_come(served, 1000))
    await stepped_clock.run(0.01)
    stream = asyncio.ensure_future(served.budget.take(1))
    await stepped_clock.run(0.01 + admission.SLICE_SECONDS + 0.01)
    assert stream.done()
    coming.cancel()


async def test_request_is_refused_when_those_ahead_need_longer_than_the_bound(
    served: Served, stepped_clock: SteppedClock
) -> None:
    waiting = [asyncio.ensure_future(_come(served, 700)) for _ in range(2)]
    await stepped_clock.run(0.0)
    with pytest.raises(RequestLimitExceeded) as refused:
        await _come(served, 1)
    assert refused.value.message == admission.OVERLOADED
    assert refused.value.headers == {"Retry-After": "5"}
    for task in waiting:
        task.cancel()


async def test_after_retry_after_the_request_is_let_in(
    served: Served, stepped_clock: SteppedClock
) -> None:
    waiting = [asyncio.ensure_future(_come(served, 700)) for _ in range(2)]
    await stepped_clock.run(0.0)
    with pytest.raises(RequestLimitExceeded) as refused:
        await _come(served, 1)
    await stepped_clock.run(refused.value.retry_after)
    waiting.append(asyncio.ensure_future(_come(served, 1)))
    await stepped_clock.run(15.0)
    await asyncio.gather(*waiting)


async def test_one_prompt_longer_than_the_bound_is_served_when_nobody_is_ahead(
    served: Served, stepped_clock: SteppedClock
) -> None:
    coming = asyncio.ensure_future(_come(served, 5000))
    await stepped_clock.run(51.0)
    await coming


async def test_who_leaves_the_queue_gives_all_tokens_back(
    served: Served, stepped_clock: SteppedClock
) -> None:
    first, leaver, last = (asyncio.ensure_future(_come(served, n)) for n in (100, 900, 100))
    await stepped_clock.run(0.5)
    leaver.cancel()
    await stepped_clock.run(2.01)
    assert first.done() and last.done()
    assert served.budget.paid == 200
    assert len(served.budget.entrance) == 0
    assert served.budget.in_flight == 0


async def test_who_leaves_while_paying_keeps_only_what_was_paid(
    served: Served, stepped_clock: SteppedClock
) -> None:
    leaver, behind = (asyncio.ensure_future(_come(served, n)) for n in (1000, 100))
    await stepped_clock.run(2.05)
    leaver.cancel()
    await stepped_clock.run(3.06)
    assert behind.done()
    assert served.budget.paid == 300


async def test_too_many_in_flight_are_refused(served: Served, stepped_clock: SteppedClock) -> None:
    served.budget.in_flight = admission.MAX_IN_FLIGHT
    with pytest.raises(RequestLimitExceeded) as refused:
        await _come(served, 1)
    assert refused.value.headers == {"Retry-After": "1"}


async def test_retry_after_counts_the_running_streams_in(
    served: Served, stepped_clock: SteppedClock
) -> None:
    async def stream() -> None:
        while True:
            await served.budget.take(1)

    streams = [asyncio.ensure_future(stream()) for _ in range(10)]
    waiting = [asyncio.ensure_future(_come(served, 400)) for _ in range(2)]
    await stepped_clock.run(0.2)
    with pytest.raises(RequestLimitExceeded) as refused:
        await _come(served, 1)
    assert refused.value.retry_after > 4  # 8 s of prompts alone would have been let in
    await stepped_clock.run(0.2 + refused.value.retry_after)
    waiting.append(asyncio.ensure_future(_come(served, 1)))
    await stepped_clock.run(18.0)
    await asyncio.gather(*waiting)
    for task in streams:
        task.cancel()
