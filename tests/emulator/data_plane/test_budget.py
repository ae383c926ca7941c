"""The token budget and the admission before it, on a clock that is stepped by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servemu.clock import SystemClock
from servemu.throughput.budget import TokenBudget

if TYPE_CHECKING:
    from tests.emulator.data_plane.conftest import SteppedClock

pytestmark = pytest.mark.anyio

BURST = 0.05


@dataclass(frozen=True)
class Payer:
    """Comes at a time for some tokens, and leaves unserved when its patience is over."""

    arrives: float
    tokens: int
    patience: float | None


payers = st.lists(
    st.builds(
        Payer,
        arrives=st.integers(0, 40).map(lambda tenths: tenths / 10),
        tokens=st.integers(1, 300),
        patience=st.none() | st.integers(0, 30).map(lambda tenths: tenths / 10 + 0.01),
    ),
    min_size=1,
    max_size=12,
)


@dataclass(frozen=True)
class Paid:
    at: float
    tokens: int
    payer: Payer


async def _pay(clock: SteppedClock, budget: TokenBudget, payer: Payer, paid: list[Paid]) -> None:
    await clock.sleep_until(payer.arrives)
    taking = asyncio.ensure_future(budget.take(payer.tokens))
    if payer.patience is not None:
        leaving = asyncio.ensure_future(clock.sleep_until(payer.arrives + payer.patience))
        await asyncio.wait((taking, leaving), return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        taking.cancel()
    await asyncio.wait((taking,))
    if not taking.cancelled():
        paid.append(Paid(clock.monotonic(), payer.tokens, payer))


def _simulate(
    clock: SteppedClock, rate: float, coming: list[Payer]
) -> tuple[TokenBudget, list[Paid]]:
    async def simulate() -> tuple[TokenBudget, list[Paid]]:
        budget = TokenBudget(rate, clock, burst_seconds=BURST)
        paid: list[Paid] = []
        tasks = [asyncio.ensure_future(_pay(clock, budget, payer, paid)) for payer in coming]
        await clock.run(until=10_000)
        assert all(task.done() for task in tasks)
        return budget, paid

    return asyncio.run(simulate())


@given(coming=payers, rate=st.sampled_from([10.0, 100.0, 980.0]))
@settings(max_examples=60, deadline=None)
def test_no_window_has_more_than_rate_times_time_and_burst(
    clock_type: type[SteppedClock], coming: list[Payer], rate: float
) -> None:
    _, paid = _simulate(clock_type(), rate, coming)
    for first in range(len(paid)):
        for last in range(first + 1, len(paid)):
            tokens = sum(p.tokens for p in paid[first + 1 : last + 1])
            seconds = paid[last].at - paid[first].at
            assert tokens <= rate * (seconds + BURST) + 1e-6


@given(coming=payers, rate=st.sampled_from([10.0, 100.0]))
@settings(max_examples=60, deadline=None)
def test_nothing_is_paid_before_its_time_has_passed(
    clock_type: type[SteppedClock], coming: list[Payer], rate: float
) -> None:
    _, paid = _simulate(clock_type(), rate, coming)
    start = min(payer.arrives for payer in coming)
    for p, tokens in zip(paid, accumulate(p.tokens for p in paid), strict=True):
        assert tokens <= rate * (p.at - start + BURST) + 1e-6


@given(coming=payers)
@settings(max_examples=60, deadline=None)
def test_what_is_counted_is_what_was_paid_and_nobody_is_left_in_line(
    clock_type: type[SteppedClock], coming: list[Payer]
) -> None:
    budget, paid = _simulate(clock_type(), 100.0, coming)
    assert budget.paid == sum(p.tokens for p in paid)
    assert budget.tokens_due == 0
    assert {p.payer for p in paid} >= {p for p in coming if p.patience is None}


@given(coming=payers)
@settings(max_examples=60, deadline=None)
def test_who_comes_first_is_served_first(
    clock_type: type[SteppedClock], coming: list[Payer]
) -> None:
    _, paid = _simulate(clock_type(), 100.0, coming)
    assert all(a.payer.arrives <= b.payer.arrives for a, b in pairwise(paid))


@given(sizes=st.lists(st.integers(1, 500), min_size=1, max_size=20))
@settings(max_examples=40, deadline=None)
def test_a_busy_budget_loses_no_time(clock_type: type[SteppedClock], sizes: list[int]) -> None:
    _, paid = _simulate(clock_type(), 100.0, [Payer(0.0, size, None) for size in sizes])
    assert paid[-1].at == pytest.approx(max(0.0, sum(sizes) / 100.0 - BURST))


async def test_a_late_wake_up_does_not_slow_the_next_payments() -> None:
    class LateClock(SystemClock):
        time = 0.0

        def monotonic(self) -> float:
            return self.time

        async def sleep_until(self, deadline: float) -> None:
            self.time = deadline + 0.03

    clock = LateClock()
    budget = TokenBudget(100.0, clock, burst_seconds=BURST)
    for _ in range(1000):
        await budget.take(1)
    assert clock.time <= 1000 / 100.0 + 0.03


async def test_who_leaves_the_line_is_not_waited_for(stepped_clock: SteppedClock) -> None:
    budget = TokenBudget(100.0, stepped_clock, burst_seconds=BURST)
    first, second, third = (
        asyncio.ensure_future(budget.take(tokens)) for tokens in (100, 1000, 100)
    )
    await stepped_clock.run(0.5)
    second.cancel()
    await stepped_clock.run(1.96)
    assert first.done() and third.done()
    assert budget.paid == 200


async def test_who_leaves_while_paying_gives_the_rest_back(stepped_clock: SteppedClock) -> None:
    budget = TokenBudget(100.0, stepped_clock, burst_seconds=BURST)
    head = asyncio.ensure_future(budget.take(1000))
    behind = asyncio.ensure_future(budget.take(100))
    await stepped_clock.run(2.0)
    head.cancel()
    await stepped_clock.run(2.94)
    assert not behind.done()
    await stepped_clock.run(2.96)
    assert behind.done()
    assert budget.paid == 100


async def test_two_streams_take_turns(stepped_clock: SteppedClock) -> None:
    budget = TokenBudget(100.0, stepped_clock)
    taken: list[str] = []

    async def stream(name: str) -> None:
        for _ in range(3):
            await budget.take(10)
            taken.append(name)

    streams: list[Coroutine[Any, Any, None]] = [stream("a"), stream("b")]
    running = asyncio.gather(*streams)
    await stepped_clock.run(10)
    await running
    assert taken == ["a", "b", "a", "b", "a", "b"]


async def test_unlimited_budget_never_waits_and_still_counts(stepped_clock: SteppedClock) -> None:
    budget = TokenBudget(None, stepped_clock)
    await budget.take(10**9)
    assert budget.paid == 10**9


async def test_new_rate_holds_from_the_next_payment(stepped_clock: SteppedClock) -> None:
    budget = TokenBudget(100.0, stepped_clock, burst_seconds=0.0)
    taking = [asyncio.ensure_future(budget.take(100)) for _ in range(2)]
    await stepped_clock.run(0.5)
    budget.set_rate(1000.0)
    await stepped_clock.run(0.99)
    assert budget.paid == 0
    await stepped_clock.run(1.1)
    assert all(t.done() for t in taking)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_rate_that_never_pays_is_refused(stepped_clock: SteppedClock, rate: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        TokenBudget(rate, stepped_clock)
