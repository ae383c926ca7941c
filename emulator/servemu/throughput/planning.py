"""The capacity planner: a log of requests replayed against sizes that could be provisioned."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from servemu.catalog import (
    CatalogModel,
    ThroughputRequest,
    provisioned_rate,
    replicas,
    throughput_band,
    unit_replicas,
)
from servemu.lifecycle.budgets import terms_of
from servemu.lifecycle.timeline import IDLE_SECONDS
from servemu.settings import Settings
from servemu.throughput.autoscaler import scale_of
from servemu.throughput.simulation import Arrival, Outcome, Simulation, Size, replica_seconds

MAX_TOKENS = 10**9
"""Of one prompt or answer: more is a mistake in the log."""

CHUNKS = (1, 2, 4, 8)
"""Sizes that are tried when none is asked for."""

BINS = 40
"""Of a history of replicas."""

FIELDS = ("time", "input_tokens", "output_tokens")


class LogInvalid(Exception):
    """A line of the log cannot be read."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}")


class SizeInvalid(Exception):
    """A size that was asked for is none."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A size that could be provisioned."""

    name: str
    """`min–max` in tokens/s, or model units."""
    size: Size


@dataclass(frozen=True, slots=True)
class Plan:
    """What a size would have done to the log."""

    name: str
    requests: int
    refused: int
    timed_out: int
    queue_p50: float
    """Seconds."""
    queue_p95: float
    hours: float
    """From the first request to the last answer."""
    replica_hours: float
    most_replicas: int
    dbus: float
    """DBU for the whole log: an estimate from list prices (facts/provisioned_throughput §3)."""
    replicas: tuple[float, ...]
    """Mean of each fortieth of the time."""


def read_log(lines: Iterable[str]) -> list[Arrival]:
    """`{"time": seconds or ISO 8601, "input_tokens": n, "output_tokens": n}` a line, any order;
    empty lines are passed over. Answers them by time, the first at 0. Raises `LogInvalid`.
    """
    read = [_arrival(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not read:
        raise LogInvalid(1, "there is no request in it")
    read.sort(key=lambda one: one[0])
    first = read[0][0]
    return [Arrival(at - first, inputs, outputs) for at, inputs, outputs in read]


def candidates(
    model: CatalogModel, sizes: Sequence[str], settings: Settings, *, scale_to_zero: bool = False
) -> list[Candidate]:
    """`sizes`: tokens/s as `max` or `min:max`, or model units; none: 1, 2, 4 and 8 chunks at most.

    Raises `SizeInvalid`, `ThroughputInvalid`.
    """
    chunk = model.family.unit_chunk if model.takes_model_units else model.chunk
    if chunk is None or model.refusal is not None:
        raise SizeInvalid(f"{model.full_name} has no provisioned throughput")
    if not sizes:
        least = "" if model.takes_model_units else f"{chunk}:"
        sizes = [f"{least}{number * chunk}" for number in CHUNKS]
    return [_candidate(model, size, settings, scale_to_zero) for size in sizes]


def plan(model: CatalogModel, candidate: Candidate, arrivals: Sequence[Arrival]) -> Plan:
    """Replay the log against one size."""
    outcome = Simulation(candidate.size).run(arrivals)
    waits = sorted(outcome.waits)
    end = max(outcome.ended_at, arrivals[-1].at, 1e-9)
    replica_hours = replica_seconds(outcome.replicas, end) / 3600
    return Plan(
        name=candidate.name,
        requests=len(arrivals),
        refused=outcome.refused,
        timed_out=outcome.timed_out,
        queue_p50=_percentile(waits, 0.5),
        queue_p95=_percentile(waits, 0.95),
        hours=end / 3600,
        replica_hours=replica_hours,
        most_replicas=max(number for _, number in outcome.replicas),
        dbus=replica_hours * model.family.dbus_per_chunk,
        replicas=_binned(outcome, end),
    )


def _arrival(number: int, line: str) -> tuple[float, int, int]:
    try:
        given = json.loads(line)
    except (ValueError, RecursionError):
        raise LogInvalid(number, "is no JSON") from None
    if not isinstance(given, dict):
        raise LogInvalid(number, "is no JSON object")
    missing = [name for name in FIELDS if name not in given]
    if missing:
        raise LogInvalid(number, f"has no {missing[0]}")
    tokens = []
    for name in FIELDS[1:]:
        value = given[name]
        if type(value) is not int or not 0 <= value <= MAX_TOKENS:
            raise LogInvalid(number, f"{name} is 0 to {MAX_TOKENS}, got {value!r:.40}")
        tokens.append(value)
    return _seconds(number, given["time"]), tokens[0], tokens[1]


def _seconds(number: int, given: object) -> float:
    if isinstance(given, int | float) and not isinstance(given, bool) and abs(given) < 1e12:
        return float(given)
    if isinstance(given, str):
        try:
            at = datetime.fromisoformat(given)
        except ValueError:
            pass
        else:
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    raise LogInvalid(number, f"time is seconds or ISO 8601, got {given!r:.40}")


def _candidate(
    model: CatalogModel, text: str, settings: Settings, scale_to_zero: bool
) -> Candidate:
    numbers = text.split(":")
    if len(numbers) > 2 or not all(part.isascii() and part.isdigit() for part in numbers):
        raise SizeInvalid(f"a size is tokens/s as max or min:max, or model units; got '{text}'")
    if model.takes_model_units:
        if len(numbers) > 1:
            raise SizeInvalid(f"model units are one number, got '{text}'")
        least = most = unit_replicas(model, int(text))
        name = text
    else:
        least_asked = int(numbers[0]) if len(numbers) > 1 else None
        asked = ThroughputRequest(least_asked, int(numbers[-1]), scale_to_zero)
        band = throughput_band(model, asked)
        assert model.chunk is not None
        most = replicas(band.maximum, model.chunk)
        least = max(1, replicas(band.minimum, model.chunk))
        name = f"{band.minimum}–{band.maximum}"
    bounds = (least, most) if settings.autoscaling and model.family.autoscales else (most, most)
    rate = provisioned_rate(1, model) * settings.throughput_scale
    size = Size(
        scale=scale_of(model.family, bounds, rate, 1.0),
        terms=terms_of(settings, model, bursts=model.takes_model_units),
        idle_seconds=IDLE_SECONDS if scale_to_zero else None,
        cold_start_seconds=model.family.cold_start_seconds,
        request_timeout=settings.request_timeout,
    )
    return Candidate(name, size)


def _percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest that at least `share` of them do not exceed; 0 for none."""
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else 0.0


def _binned(outcome: Outcome, end: float) -> tuple[float, ...]:
    width = end / BINS
    sums = [replica_seconds(outcome.replicas, width * number) for number in range(BINS + 1)]
    return tuple((later - sooner) / width for sooner, later in zip(sums, sums[1:], strict=False))
