"""The token budget on a clock that is stepped by hand."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from servemu.clock import SystemClock
from servemu.throughput.budget import TokenBudget
from servemu.throughput.terms import Terms, Weights

if TYPE_CHECKING:
    from tests.emulator.data_plane.conftest import SteppedClock

pytestmark = pytest.mark.anyio

SHARP = Terms(burst_seconds=0.0)


async def _stream(budget: TokenBudget, prompt: int, chunks: list[int], taken: list[int]) -> None:
    async with budget.enter(prompt) as admitted:
        for tokens in chunks:
            await admitted.pay(tokens)
            taken.append(tokens)


async def test_a_late_wake_up_does_not_slow_the_next_payments() -> None:
    class LateClock(SystemClock):
        time = 0.0

        def monotonic(self) -> float:
            return self.time

        async def sleep_until(self, deadline: float) -> None:
            self.time = deadline + 0.03

    clock = LateClock()
    await _stream(TokenBudget(100.0, clock), 0, [1] * 1000, [])
    assert clock.time <= 1000 / 100.0 + 0.03


async def test_two_streams_take_turns_by_tokens_not_by_chunks(
    stepped_clock: SteppedClock,
) -> None:
    budget = TokenBudget(100.0, stepped_clock, SHARP)
    small: list[int] = []
    big: list[int] = []
    running = [
        asyncio.ensure_future(_stream(budget, 0, chunks, taken))
        for chunks, taken in (([1] * 1000, small), ([20] * 1000, big))
    ]
    await stepped_clock.run(10.0)
    assert abs(sum(small) - sum(big)) <= 40
    assert sum(small) + sum(big) == pytest.approx(1000, abs=21)
    for task in running:
        task.cancel()


async def test_who_leaves_while_paying_lets_the_next_one_pay_at_once(
    stepped_clock: SteppedClock,
) -> None:
    budget = TokenBudget(100.0, stepped_clock, SHARP)
    leaver, behind = (asyncio.ensure_future(_stream(budget, 0, [n], [])) for n in (1000, 100))
    await stepped_clock.run(2.0)
    leaver.cancel()
    await stepped_clock.run(2.99)
    assert not behind.done()
    await stepped_clock.run(3.01)
    assert behind.done()
    assert budget.paid == 100


async def test_weights_are_what_a_token_takes(stepped_clock: SteppedClock) -> None:
    terms = Terms(weights=Weights(input=0.5, output=4.0), burst_seconds=0.0)
    budget = TokenBudget(100.0, stepped_clock, terms)
    running = asyncio.ensure_future(_stream(budget, 100, [10], []))
    await stepped_clock.run(0.89)
    assert not running.done()
    await stepped_clock.run(0.91)
    assert running.done()
    assert budget.paid == 90


async def test_unlimited_budget_never_waits_and_still_counts(stepped_clock: SteppedClock) -> None:
    budget = TokenBudget(None, stepped_clock)
    await _stream(budget, 10**9, [10**9], [])
    assert budget.paid == 2 * 10**9


async def test_nothing_runs_while_nobody_waits(stepped_clock: SteppedClock) -> None:
    budget = TokenBudget(100.0, stepped_clock)
    before = asyncio.all_tasks()
    leaver = asyncio.ensure_future(_stream(budget, 1000, [], []))
    await stepped_clock.run(1.0)
    leaver.cancel()
    await stepped_clock.run(1.1)
    assert asyncio.all_tasks() == before
