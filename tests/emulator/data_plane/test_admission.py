"""The queue before the token budget: who waits, who is turned away, and what leavers give back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servemu.errors import RequestLimitExceeded
from servemu.serving import Served
from servemu.throughput import admission
from servemu.throughput.allowance import Rate
from servemu.throughput.budget import TokenBudget
from servemu.throughput.fair_queue import SLICE_SECONDS, FairQueue
from servemu.throughput.limits import WorkspaceLimits
from servemu.throughput.terms import Bounds, Terms

if TYPE_CHECKING:
    from tests.emulator.data_plane.conftest import Plane, ScriptedEngine, SteppedClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def served(
    make_plane: Callable[[], Plane], scripted: type[ScriptedEngine], stepped_clock: SteppedClock
) -> Served:
    """An endpoint of 100 tokens/s where nobody waits longer than 10 s."""
    terms = Terms(bounds=Bounds(seconds=10.0, in_flight=4), burst_seconds=0.0)
    budget = TokenBudget(100.0, stepped_clock, terms)
    return make_plane().add_limited("e", "llm/v1/chat", scripted([]), budget)


async def _come(served: Served, tokens: int, answer: int = 0) -> None:
    async with admission.enter(served, tokens) as admitted:
        for _ in range(answer):
            await admitted.pay(1)


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
    running = asyncio.ensure_future(_come(served, 0, answer=10))
    coming = asyncio.ensure_future(_come(served, 1000))
    await stepped_clock.run(10 * 3 * SLICE_SECONDS)
    assert running.done()
    coming.cancel()


async def test_a_short_prompt_does_not_wait_for_long_ones(
    served: Served, stepped_clock: SteppedClock
) -> None:
    long = [asyncio.ensure_future(_come(served, 300)) for _ in range(2)]
    await stepped_clock.run(0.5)
    short = asyncio.ensure_future(_come(served, 10))
    await stepped_clock.run(0.5 + 0.1 + 2 * SLICE_SECONDS)
    assert short.done()
    for task in long:
        task.cancel()


async def test_after_retry_after_the_request_is_let_in(
    served: Served, stepped_clock: SteppedClock
) -> None:
    waiting = [asyncio.ensure_future(_come(served, 700)) for _ in range(2)]
    await stepped_clock.run(0.0)
    with pytest.raises(RequestLimitExceeded) as refused:
        await _come(served, 1)
    assert refused.value.message == admission.OVERLOADED
    assert refused.value.headers == {"Retry-After": "10"}  # (1400 - 750) / 75 and a lag
    assert served.budget.meter.refused == 1
    await stepped_clock.run(refused.value.retry_after)
    waiting.append(asyncio.ensure_future(_come(served, 1)))
    await stepped_clock.run(15.0)
    await asyncio.gather(*waiting)


async def test_retry_after_holds_while_streams_run(
    served: Served, stepped_clock: SteppedClock
) -> None:
    streams = [asyncio.ensure_future(_come(served, 0, answer=100_000)) for _ in range(2)]
    await stepped_clock.run(0.1)
    waiting = [asyncio.ensure_future(_come(served, 1000))]
    await stepped_clock.run(0.2)
    with pytest.raises(RequestLimitExceeded) as refused:
        await _come(served, 1)
    await stepped_clock.run(0.2 + refused.value.retry_after)
    waiting.append(asyncio.ensure_future(_come(served, 1)))
    await stepped_clock.run(20.0)
    await asyncio.gather(*waiting)
    for task in streams:
        task.cancel()


async def test_one_prompt_longer_than_the_bound_is_served_when_nobody_is_ahead(
    served: Served, stepped_clock: SteppedClock
) -> None:
    coming = asyncio.ensure_future(_come(served, 5000))
    await stepped_clock.run(51.0)
    assert coming.done()
    await coming


async def test_who_leaves_the_queue_gives_all_tokens_back(
    served: Served, stepped_clock: SteppedClock
) -> None:
    first, leaver, last = (asyncio.ensure_future(_come(served, n)) for n in (100, 500, 1000))
    await stepped_clock.run(0.5)
    leaver.cancel()
    await stepped_clock.run(11.01)
    assert first.done() and last.done()
    assert served.budget.paid == 1100
    queue = served.budget.queue
    assert queue is not None and queue.is_idle and queue.waiting_tokens == 0
    assert served.budget.in_flight == 0


async def test_who_leaves_while_paying_keeps_only_what_was_paid(
    served: Served, stepped_clock: SteppedClock
) -> None:
    leaver, behind = (asyncio.ensure_future(_come(served, n)) for n in (700, 2000))
    await stepped_clock.run(2.05)
    leaver.cancel()
    await stepped_clock.run(2.05 + 20.01)
    assert behind.done()
    assert served.budget.paid == pytest.approx(2200, abs=5)


async def test_too_many_in_flight_are_refused(served: Served, stepped_clock: SteppedClock) -> None:
    running = [asyncio.ensure_future(_come(served, 0, answer=10)) for _ in range(4)]
    await stepped_clock.run(0.0)
    with pytest.raises(RequestLimitExceeded) as refused:
        await _come(served, 1)
    assert refused.value.headers == {"Retry-After": "1"}
    await stepped_clock.run(1.0)
    await asyncio.gather(*running)
    await stepped_clock.run(1.1)
    coming = asyncio.ensure_future(_come(served, 1))
    await stepped_clock.run(1.2)
    await coming


async def test_workspace_has_its_queries_per_second(stepped_clock: SteppedClock) -> None:
    limits = WorkspaceLimits(stepped_clock, queries_per_second=5, in_flight=100)

    def ask(workspace: str = "w") -> None:
        with limits.taking(workspace, "e"):
            pass

    for _ in range(5):
        ask()
    with pytest.raises(RequestLimitExceeded, match="Exceeded workspace QPS rate limit for e") as no:
        ask()
    ask("another")
    await stepped_clock.run(no.value.retry_after)
    ask()


async def test_workspace_has_its_requests_at_a_time(stepped_clock: SteppedClock) -> None:
    limits = WorkspaceLimits(stepped_clock, queries_per_second=1000, in_flight=1)
    with limits.taking("w", "e"):
        with pytest.raises(RequestLimitExceeded, match="max number of parallel requests"):
            limits.taking("w", "f").__enter__()
        with limits.taking("another", "e"):
            pass
    with limits.taking("w", "e"):
        pass


@given(
    prompts=st.lists(st.integers(1, 5000), min_size=1, max_size=30),
    streams=st.integers(0, 20),
    rate=st.sampled_from([10.0, 970.0, 95_000.0]),
)
@settings(max_examples=80, deadline=None)
def test_retry_after_is_true(prompts: list[int], streams: int, rate: float) -> None:
    queue, bounds = FairQueue([Rate(rate)]), Bounds(seconds=2.0)
    running = [queue.enter(0, 0.0) for _ in range(streams)]
    for stream in running:
        queue.ask(stream, 32, 0.0)
    for tokens in prompts:
        queue.enter(tokens, 0.0)
    refused = admission.refusal(queue, bounds)
    if refused is None:
        return
    while (due := queue.due()) is not None and due <= refused.retry_after:
        for stream in queue.pay(due):
            queue.ask(stream, 32, due)  # whoever runs goes on for ever
    assert admission.refusal(queue, bounds) is None
