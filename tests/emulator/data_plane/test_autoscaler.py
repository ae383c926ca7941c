"""Decisions of the autoscaler, alone and over the simulated queue."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servemu.throughput.autoscaler import NO_LOAD, Load, Scale, Standing, Starting, decide, due
from servemu.throughput.simulation import Arrival, Simulation, Size, merged
from servemu.throughput.terms import Terms

CHUNK = 1000.0
SCALE = Scale(1, 5, CHUNK, decision_seconds=15.0, up_seconds=120.0, down_seconds=300.0)
YEAR = 365 * 86400.0


def follow(scale: Scale, load: Load, start: Standing, seconds: float) -> list[tuple[float, int]]:
    """The same load all the time: when how many replicas served from then on."""
    now, standing, moves = 0.0, start, [(0.0, start.replicas)]
    while now < seconds:
        standing = decide(standing, scale, load, now)
        if standing.replicas != moves[-1][1]:
            moves.append((now, standing.replicas))
        at = due(standing, scale, now, is_loaded=True)
        assert at is not None and at > now
        now = at
    return moves


LOADS = st.builds(
    Load,
    st.floats(allow_nan=True, allow_infinity=True) | st.floats(0, 10_000),
    st.booleans(),
)


@given(
    bounds=st.tuples(st.integers(1, 20), st.integers(0, 20)),
    looks=st.lists(st.tuples(LOADS, st.floats(0, YEAR), st.integers(0, 30) | st.none())),
)
def test_replicas_are_never_outside_of_their_bounds_whatever_the_load(
    bounds: tuple[int, int], looks: list[tuple[Load, float, int | None]]
) -> None:
    least, most = bounds[0], bounds[0] + bounds[1]
    scale = Scale(least, most, CHUNK, 15.0, 120.0, 300.0)
    standing, now = Standing(least), 0.0
    for load, passed, room in looks:
        now += passed
        before = standing
        standing = decide(standing, scale, load, now, room)
        assert least <= standing.replicas <= most
        assert standing.replicas + standing.num_starting <= most
        if room is not None:
            assert standing.replicas - before.replicas <= room
        assert all(one.ready_at > now for one in standing.starting)


@given(offered=st.floats(0, 8 * CHUNK), start=st.integers(1, 5))
def test_steady_load_moves_replicas_in_one_direction_only_and_then_no_more(
    offered: float, start: int
) -> None:
    moves = [number for _, number in follow(SCALE, Load(offered), Standing(start), 2 * 3600)]
    assert moves in (sorted(moves), sorted(moves, reverse=True))
    settled = follow(SCALE, Load(offered), Standing(moves[-1]), 4 * 3600)
    assert len(settled) == 1


@given(offered=st.floats(0.91 * CHUNK, 4 * CHUNK))
def test_replicas_are_there_once_the_familys_delay_is_over(offered: float) -> None:
    [_, (at, number), *_] = follow(SCALE, Load(offered), Standing(1), 600)
    assert at == SCALE.up_seconds
    assert number * CHUNK > offered


@given(offered=st.floats(0, 0.69 * CHUNK))
def test_too_many_replicas_go_once_they_were_too_many_for_long_enough(offered: float) -> None:
    moves = follow(SCALE, Load(offered), Standing(2), 3600)
    assert moves == [(0.0, 2), (SCALE.down_seconds, 1)]


def test_fewer_go_than_the_last_look_would_let_go_when_more_were_wanted_meanwhile() -> None:
    standing = decide(Standing(5), SCALE, Load(2.3 * CHUNK), 0.0)
    standing = decide(standing, SCALE, NO_LOAD, SCALE.down_seconds)
    assert standing == Standing(3, low_since=SCALE.down_seconds, low_most=1)


def test_load_that_comes_back_in_time_keeps_all_replicas() -> None:
    standing = decide(Standing(3), SCALE, NO_LOAD, 0.0)
    standing = decide(standing, SCALE, Load(2.5 * CHUNK), 299.0)
    assert standing == Standing(3)


def test_the_pool_stops_a_scale_up_short_and_gives_more_when_it_has_more() -> None:
    load = Load(4 * CHUNK)
    standing = decide(Standing(1), SCALE, load, 0.0, room=2)
    assert standing == Standing(1, (Starting(2, 120.0),), is_short=True)
    standing = decide(standing, SCALE, load, 120.0, room=2)
    assert standing == Standing(3, is_short=True)
    standing = decide(standing, SCALE, load, 135.0, room=5)
    assert standing == Standing(3, (Starting(2, 255.0),))


def test_replicas_that_the_pool_lost_meanwhile_do_not_come() -> None:
    standing = Standing(1, (Starting(3, 120.0),))
    assert decide(standing, SCALE, NO_LOAD, 120.0, room=1).replicas == 2


def test_a_429_asks_for_one_replica_more() -> None:
    standing = decide(Standing(2), SCALE, Load(0.1, is_refused=True), 0.0)
    assert standing == Standing(2, (Starting(1, 120.0),))


@pytest.mark.parametrize("offered", [math.nan, -1.0, -math.inf, 0.0])
def test_a_load_that_is_none_lets_all_go_but_the_least(offered: float) -> None:
    assert follow(SCALE, Load(offered), Standing(5), 700)[-1] == (300.0, 1)


@pytest.mark.parametrize("offered", [math.inf, 1e300])
def test_an_enormous_load_brings_the_most_there_are(offered: float) -> None:
    assert follow(SCALE, Load(offered), Standing(1), 700)[-1] == (120.0, 5)


def test_without_load_nothing_is_due() -> None:
    assert due(Standing(1), SCALE, 5.0, is_loaded=False) is None


def steady(start: float, seconds: float, tokens_per_second: float) -> list[Arrival]:
    """Ten requests a second, input to output 10:1."""
    tokens = tokens_per_second / 10
    return [
        Arrival(start + number / 10, round(tokens * 10 / 11), round(tokens / 11))
        for number in range(int(seconds * 10))
    ]


def test_the_whole_of_a_day_up_down_to_zero_and_a_held_request() -> None:
    load = merged(steady(0, 600, 500), steady(600, 900, 2500), [Arrival(6000, 10, 10)])
    size = Size(SCALE, Terms(), idle_seconds=1800.0, cold_start_seconds=240.0)
    outcome = Simulation(size).run(load)
    numbers = [number for _, number in outcome.replicas]
    assert numbers[0] == 1 and max(numbers) >= 3 and numbers[-3:] == [1, 0, 1]
    assert outcome.replicas[-2][0] == pytest.approx(1500 + 1800, abs=1)
    assert outcome.waits[-1] == pytest.approx(240, abs=1)
    assert outcome.refused + len(outcome.waits) == len(load)


@settings(max_examples=6, deadline=None)
@given(
    share=st.floats(0.05, 1.5),
    prompts=st.lists(st.integers(1000, 4000), min_size=1, max_size=5),
)
def test_steady_requests_settle_within_the_bounds(share: float, prompts: list[int]) -> None:
    scale = Scale(1, 3, CHUNK, 15.0, 120.0, 300.0)
    mean = sum(prompts) / len(prompts) + 50
    gap = mean / (share * 3 * CHUNK)
    count = int(1500 / gap)
    load = [Arrival(n * gap, prompts[n % len(prompts)], 50) for n in range(count)]
    outcome = Simulation(Size(scale, Terms())).run(load)
    assert all(1 <= number <= 3 for _, number in outcome.replicas)
    late = [number for at, number in outcome.replicas if at > 900]
    assert len(late) <= 1
    paid = sum(one.input_tokens + one.output_tokens for one in load)
    assert outcome.paid <= paid
    if not outcome.refused:
        assert outcome.paid == pytest.approx(paid)


def test_a_request_after_a_year_costs_no_step_for_each_second_of_it() -> None:
    load = [*steady(0, 300, 2000), Arrival(YEAR, 100, 10)]
    size = Size(SCALE, Terms(), idle_seconds=1800.0, cold_start_seconds=240.0)
    outcome = Simulation(size).run(load)
    assert outcome.ended_at == pytest.approx(YEAR + 240, abs=2)
    assert len(outcome.replicas) < 10


def test_who_is_held_longer_than_the_time_out_is_not_answered() -> None:
    size = Size(SCALE, Terms(), idle_seconds=10.0, cold_start_seconds=400.0, request_timeout=297.0)
    load = [Arrival(0.0, 10, 1), Arrival(100.0, 10, 1), Arrival(300.0, 10, 1)]
    outcome = Simulation(size).run(load)
    assert (outcome.timed_out, len(outcome.waits)) == (1, 2)
