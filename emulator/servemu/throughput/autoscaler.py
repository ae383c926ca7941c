"""How many replicas a served entity should have: pure decisions, no clock, no I/O.

Live and simulated, somebody calls `decide` when `due` says so. What is known of the real one is
that it moves in chunks, is slow, and that its scale-down is slower than its scale-up; every figure
is a GUESS (facts/provisioned_throughput §3).
"""

import math
from dataclasses import dataclass, replace

from servemu.catalog import Family
from servemu.throughput.fair_queue import FairQueue
from servemu.throughput.meter import Meter

SCALE_UP_ABOVE = 0.9
"""Of what the replicas provide: busier than this, and more are wanted."""

AIM = 0.8
"""Utilisation that a change aims at. It lies between the two others by so much that no change can
make the opposite one due: steady load moves nothing twice."""

SCALE_DOWN_BELOW = 0.7
"""Of what one replica less would provide."""

WINDOW_SECONDS = 30.0
"""Load is measured over this long: two decisions."""


SHORTEST_LOOK = 0.1
"""Seconds between two looks, however high the speedup."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Between what an entity may move, and how quickly. Seconds are those of the caller's clock."""

    minimum: int
    """Replicas, 1 or more: none is left to scaling to zero."""
    maximum: int
    replica_rate: float
    """Tokens/s of one replica, above 0."""
    decision_seconds: float
    """Between two looks at the load."""
    up_seconds: float
    """From the decision until a new replica serves."""
    down_seconds: float
    """For how long fewer must be enough before the rest goes."""


@dataclass(frozen=True, slots=True)
class Load:
    """What was asked of the entity lately."""

    offered: float = 0.0
    """Tokens/s: what went through the budget, and what waits before it."""
    is_refused: bool = False
    """Somebody got a 429."""


NO_LOAD = Load()


@dataclass(frozen=True, slots=True)
class Starting:
    """Replicas on their way."""

    replicas: int
    ready_at: float


@dataclass(frozen=True, slots=True)
class Standing:
    """The replicas of an entity, and what is under way."""

    replicas: int
    """They serve."""
    starting: tuple[Starting, ...] = ()
    """Earliest first."""
    low_since: float | None = None
    """Since when fewer would have been enough."""
    low_most: int = 0
    """The most that was wanted since."""
    is_short: bool = False
    """The GPU pool did not give all that was wanted."""

    @property
    def num_starting(self) -> int:
        return sum(one.replicas for one in self.starting)


def scale_of(family: Family, bounds: tuple[int, int], rate: float, speedup: float) -> Scale:
    """Of an entity with so many replicas, of `rate` tokens/s each."""
    return Scale(
        minimum=bounds[0],
        maximum=bounds[1],
        replica_rate=rate,
        decision_seconds=max(SHORTEST_LOOK, family.scale_decision_seconds / speedup),
        up_seconds=family.scale_up_seconds / speedup,
        down_seconds=family.scale_down_seconds / speedup,
    )


def measure(meter: Meter, queue: FairQueue, now: float, seconds: float) -> Load:
    """The load of the last `seconds`, at `now` on the meter's clock. What waits counts as if it had
    to be done within as long again."""
    window = meter.window(now, seconds)
    paid = window.paid * window.seconds  # a young meter's first burst is no rate
    return Load((paid + queue.waiting_tokens) / seconds, window.refused > 0)


def decide(
    standing: Standing, scale: Scale, load: Load, now: float, room: int | None = None
) -> Standing:
    """The next state: who is ready serves, more are ordered, or what was long too much goes.

    `room`: replicas that the GPU pool has beyond those that serve; None: unlimited.
    """
    before = standing.replicas
    standing = _arrived(standing, scale, now, room)
    if room is not None:
        room -= standing.replicas - before
    want = wanted(standing, scale, load)
    if want < standing.replicas and not standing.starting:
        return _lower(standing, scale, want, now)
    standing = replace(standing, low_since=None, low_most=0)
    order = want - standing.replicas - standing.num_starting
    if order <= 0:
        return standing if want > standing.replicas else replace(standing, is_short=False)
    free = order if room is None else max(0, room - standing.num_starting)
    granted = min(order, free)
    ready = (Starting(granted, now + scale.up_seconds),) if granted else ()
    return replace(standing, starting=standing.starting + ready, is_short=granted < order)


def wanted(standing: Standing, scale: Scale, load: Load) -> int:
    """Replicas that the load asks for, within the bounds; what stands, where it is good enough.

    A load that is no number, or below 0, is none.
    """
    offered = load.offered if load.offered > 0 else 0.0
    serving = standing.replicas
    most = scale.maximum * scale.replica_rate
    needed = math.ceil(min(offered, most) / (AIM * scale.replica_rate))
    if load.is_refused or offered > SCALE_UP_ABOVE * serving * scale.replica_rate:
        return _within(scale, max(needed, serving + 1))
    if offered <= SCALE_DOWN_BELOW * (serving - 1) * scale.replica_rate:
        return _within(scale, min(needed, serving - 1))
    return _within(scale, serving)


def due(standing: Standing, scale: Scale, now: float, *, is_loaded: bool) -> float | None:
    """When to decide again after `now`; None: not before somebody asks for something."""
    times = [one.ready_at for one in standing.starting[:1]]
    if standing.low_since is not None:
        times.append(standing.low_since + scale.down_seconds)
    if is_loaded:
        times.append(now + scale.decision_seconds)
    return min(times, default=None)


def _arrived(standing: Standing, scale: Scale, now: float, room: int | None) -> Standing:
    """Those that are ready serve, as far as the pool still has them."""
    ready = sum(one.replicas for one in standing.starting if one.ready_at <= now)
    granted = ready if room is None else min(ready, max(0, room))
    return replace(
        standing,
        replicas=_within(scale, standing.replicas + granted),
        starting=tuple(one for one in standing.starting if one.ready_at > now),
        is_short=standing.is_short or granted < ready,
    )


def _lower(standing: Standing, scale: Scale, want: int, now: float) -> Standing:
    """Fewer are enough; after long enough, as many go as were not wanted all the time."""
    since = now if standing.low_since is None else standing.low_since
    most = max(standing.low_most, want)
    if now - since < scale.down_seconds:
        return replace(standing, low_since=since, low_most=most, is_short=False)
    still_low = want < most
    return Standing(most, low_since=now if still_low else None, low_most=want if still_low else 0)


def _within(scale: Scale, replicas: int) -> int:
    return max(scale.minimum, min(scale.maximum, replicas))
