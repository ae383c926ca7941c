"""The certificate of a token budget, on a clock that is stepped by hand."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from servemu.throughput.budget import TokenBudget
from servemu.throughput.certificate import (
    Certificate,
    Measured,
    Replicas,
    of_budget,
    percentile,
    rendered,
    together,
)
from servemu.throughput.terms import Surge, Terms

if TYPE_CHECKING:
    from tests.emulator.data_plane.conftest import SteppedClock

pytestmark = pytest.mark.anyio

ONE = Replicas(1, 1, 1)


async def _stream(budget: TokenBudget, prompt: int, engine_rate: float, reads: float = 0.0) -> None:
    """Asks for ever: an engine that gives so many tokens/s, a client that takes so long to read."""
    clock = budget._clock
    async with budget.enter(prompt) as admitted:
        while True:
            if engine_rate < 1e9:
                await clock.sleep_until(clock.monotonic() + 1 / engine_rate)
            await admitted.pay(1)
            admitted.sending()
            if reads:
                await clock.sleep_until(clock.monotonic() + reads)
            admitted.wrote()


async def _after(
    clock: SteppedClock, budget: TokenBudget, seconds: float, *streams: tuple[float, float]
) -> Certificate:
    """Of streams (engine's rate, seconds to read a token) that ran for so long."""
    running = [asyncio.ensure_future(_stream(budget, 0, *stream)) for stream in streams]
    await clock.run(seconds)
    certificate = of_budget(budget, budget.rate, ONE, clock.monotonic())
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    return certificate


async def test_a_full_budget_is_certified(stepped_clock: SteppedClock) -> None:
    budget = TokenBudget(100.0, stepped_clock)
    certificate = await _after(stepped_clock, budget, 20.0, (1e9, 0.0), (1e9, 0.0))
    for window in certificate.windows[:2]:
        assert window.delivered == pytest.approx(100.0, rel=0.02)
        assert window.error_percent == pytest.approx(0.0, abs=1.5)
    assert not certificate.engine_bound


async def test_an_engine_that_is_too_slow_is_told(stepped_clock: SteppedClock) -> None:
    budget = TokenBudget(100.0, stepped_clock)
    certificate = await _after(stepped_clock, budget, 20.0, (40.0, 0.0), (20.0, 0.0))
    window = certificate.windows[1]
    assert window.delivered == pytest.approx(60.0, rel=0.03)
    assert window.error_percent == pytest.approx(-40.0, abs=2)
    assert certificate.engine_bound


async def test_a_client_that_reads_slowly_is_not_the_machine(stepped_clock: SteppedClock) -> None:
    budget = TokenBudget(100.0, stepped_clock)
    certificate = await _after(stepped_clock, budget, 20.0, (1e9, 0.1))
    window = certificate.windows[1]
    assert window.delivered == pytest.approx(10.0, rel=0.1)
    assert window.demand < 0.2
    assert window.error_percent is None
    assert not certificate.engine_bound


async def test_a_client_that_leaves_while_it_is_sent_to_leaves_no_demand(
    stepped_clock: SteppedClock,
) -> None:
    budget = TokenBudget(100.0, stepped_clock)
    await _after(stepped_clock, budget, 1.0, (1e9, 5.0))
    assert (budget.meter.demanding, budget.in_flight, budget.meter.prefilling) == (0, 0, 0.0)


async def test_an_idle_budget_has_no_error_and_no_waits(stepped_clock: SteppedClock) -> None:
    budget = TokenBudget(100.0, stepped_clock)
    await stepped_clock.run(365 * 86_400.0)
    shown = rendered(of_budget(budget, 100.0, ONE, stepped_clock.monotonic()))
    assert shown["queue"] == {"requests": 0, "tokens": 0.0, "wait_p50": None, "wait_p95": None}
    assert shown["windows"] == [
        {
            "seconds": seconds,
            "measured_seconds": pytest.approx(seconds),
            "provisioned": 100.0,
            "processed": 0.0,
            "delivered": 0.0,
            "demand": 0.0,
            "error_percent": None,
            "refused": 0,
        }
        for seconds in (1.0, 10.0, 60.0)
    ]


async def test_queue_is_what_waits_now(stepped_clock: SteppedClock) -> None:
    budget = TokenBudget(100.0, stepped_clock, Terms(burst_seconds=0.0))
    running = [asyncio.ensure_future(_stream(budget, n, 1e9)) for n in (100, 300, 500)]
    await stepped_clock.run(2.0)
    shown = rendered(of_budget(budget, 100.0, ONE, stepped_clock.monotonic()))
    assert shown["in_flight"] == 3
    queue = shown["queue"]
    assert isinstance(queue, dict)
    assert (queue["requests"], queue["wait_p50"]) == (2, 1.0)
    assert 600 < queue["tokens"] < 800
    for task in running:
        task.cancel()


async def test_unlimited_delivers_and_has_no_error(stepped_clock: SteppedClock) -> None:
    budget = TokenBudget(None, stepped_clock)
    await _after(stepped_clock, budget, 5.0, (50.0, 0.0))
    certificate = of_budget(budget, None, None, stepped_clock.monotonic())
    assert certificate.provisioned is None and not certificate.engine_bound
    assert certificate.windows[1].delivered == pytest.approx(50.0, rel=0.03)
    assert certificate.windows[1].error_percent is None


def test_model_units_show_what_a_burst_may() -> None:
    class Still:
        def monotonic(self) -> float:
            return 0.0

    budget = TokenBudget(50.0, Still(), Terms(surge=Surge(2.0, 10.0)))  # type: ignore[arg-type]
    assert of_budget(budget, 50.0, ONE, 0.0).burst == 100.0


def test_scaled_to_zero_provides_nothing() -> None:
    shown = rendered(of_budget(None, 0.0, Replicas(0, 0, 3), 0.0))
    assert (shown["provisioned"], shown["engine_bound"]) == (0.0, False)
    assert shown["replicas"] == {"current": 0, "minimum": 0, "maximum": 3}


@pytest.mark.parametrize(
    ("demand", "processed", "error", "bound"),
    [
        (1.0, 100.0, 0.0, False),
        (1.0, 98.9, pytest.approx(-1.1), True),
        (1.0, 99.5, pytest.approx(-0.5), False),
        (0.97, 96.9, None, False),  # the client paused, nobody else is to blame
        (0.97, 90.0, None, True),
        (0.5, 10.0, None, False),
    ],
)
def test_what_is_missing_counts_only_where_it_was_asked_for(
    demand: float, processed: float, error: object, bound: bool
) -> None:
    window = Measured(10.0, 10.0, 100.0, processed, processed, demand, 0)
    assert window.error_percent == error
    assert window.is_engine_bound == bound


def test_total_is_the_sum_of_the_entities() -> None:
    def one(rate: float, demand: float, waits: tuple[float, ...]) -> Certificate:
        windows = tuple(
            Measured(s, s, rate, rate * demand, rate * demand, demand, 1) for s in (1.0, 10.0, 60.0)
        )
        replicas = Replicas(1, 0, 2)
        return Certificate(rate, None, replicas, 2, 1, 5.0, waits, 3, windows)

    total = together([one(100.0, 1.0, (1.0, 3.0)), one(300.0, 0.5, (2.0,))])
    assert (total.provisioned, total.in_flight, total.refused) == (400.0, 4, 6)
    assert (total.queue_requests, total.queue_tokens) == (2, 10.0)
    assert total.waits == (1.0, 2.0, 3.0)
    assert total.replicas == Replicas(2, 0, 4)
    assert total.windows[1] == Measured(10.0, 10.0, 400.0, 250.0, 250.0, 0.625, 2)


def test_total_with_an_unlimited_one_is_unlimited() -> None:
    assert together([Certificate(100.0), Certificate(None)]).provisioned is None


@pytest.mark.parametrize(
    ("ordered", "p50", "p95"),
    [((), None, None), ((1.0,), 1.0, 1.0), (tuple(map(float, range(1, 101))), 50.0, 95.0)],
)
def test_percentiles_are_nearest_ranks(
    ordered: tuple[float, ...], p50: float | None, p95: float | None
) -> None:
    assert (percentile(ordered, 0.5), percentile(ordered, 0.95)) == (p50, p95)
