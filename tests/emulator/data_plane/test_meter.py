"""The meter: windows of what was provisioned, paid, processed and delivered; on given times."""

import pytest

from servemu.throughput.meter import LONGEST, MAX_WAITS, STANDING, Meter, Window

YEAR = 365 * 86_400.0


def _steady(meter: Meter, until: float, rate: float, *, step: float = 0.01) -> None:
    """Somebody asks all the time, and gets `rate`."""
    meter.demanding = 1
    for _ in range(round((until - meter.now) / step)):
        meter.note(meter.now + step)
        meter.paid += rate * step
        meter.delivered += rate * step


@pytest.mark.parametrize("seconds", [1.0, 10.0, 60.0])
def test_a_steady_rate_is_seen_in_every_window(seconds: float) -> None:
    meter = Meter(0.0, 100.0)
    _steady(meter, 70.0, 100.0)
    window = meter.window(meter.now, seconds)
    assert window.seconds == pytest.approx(seconds, abs=0.11)
    assert window.provisioned == pytest.approx(100.0)
    assert window.paid == pytest.approx(100.0, rel=0.02)
    assert window.processed == window.paid
    assert window.delivered == pytest.approx(window.paid)
    assert window.demand == pytest.approx(1.0)


def test_a_young_meter_tells_how_long_it_has_measured() -> None:
    meter = Meter(0.0, 100.0)
    _steady(meter, 2.0, 100.0)
    assert meter.window(meter.now, 60.0).seconds == pytest.approx(2.0)


def test_a_meter_that_was_just_made_says_nothing() -> None:
    assert Meter(5.0, 100.0).window(5.0, 10.0) == Window(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0)


def test_an_idle_year_leaves_empty_windows() -> None:
    meter = Meter(0.0, 100.0)
    _steady(meter, 2.0, 100.0)
    meter.demanding = 0
    window = meter.window(YEAR, 60.0)
    assert (window.paid, window.delivered, window.demand) == (0.0, 0.0, 0.0)
    assert window.seconds == pytest.approx(60.0)
    assert window.provisioned == pytest.approx(100.0)
    assert meter.waits(YEAR) == []


def test_what_happened_before_the_window_is_not_in_it() -> None:
    meter = Meter(0.0, 100.0)
    _steady(meter, 5.0, 100.0)
    meter.demanding = 0
    meter.note(6.0)
    meter.refused += 1
    assert meter.window(7.5, 1.0).refused == 0
    assert meter.window(7.5, 10.0).refused == 1


def test_provisioned_is_the_mean_when_replicas_come() -> None:
    meter = Meter(0.0, 100.0)
    meter.note(5.0)
    meter.rate = 300.0
    assert meter.window(10.0, 10.0).provisioned == pytest.approx(200.0)


def test_prompts_that_pile_up_before_the_engine_were_not_processed() -> None:
    meter = Meter(0.0, 1000.0)
    meter.demanding = 1
    for _ in range(100):  # a prompt of 100 every 0.1 s is paid, and none is answered
        meter.note(meter.now + 0.1)
        meter.paid += 100
        meter.prefilling += 100
    window = meter.window(meter.now, 5.0)
    assert window.paid == pytest.approx(1000.0, rel=0.03)
    assert window.processed == pytest.approx(0.0, abs=25)


def test_a_prompt_that_is_answered_soon_is_no_backlog() -> None:
    meter = Meter(0.0, 1000.0)
    meter.demanding = 1
    for _ in range(10):
        meter.note(meter.now + STANDING / 2)
        meter.paid += 1000
        meter.prefilling += 1000
        during = meter.window(meter.now, 5.0)
        assert during.processed == during.paid
        meter.note(meter.now + 0.2)
        meter.prefilling -= 1000


def test_waits_are_those_of_the_longest_window_and_not_too_many() -> None:
    meter = Meter(0.0, 100.0)
    meter.waited(9.0)
    meter.note(LONGEST)
    for number in range(MAX_WAITS + 5):
        meter.waited(MAX_WAITS - number)
    waits = meter.waits(LONGEST + 1)
    assert len(waits) == MAX_WAITS
    assert waits == sorted(waits)
    assert 9.0 in waits  # of the later ones: the first is a minute old
    assert waits[0] == -4
