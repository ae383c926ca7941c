"""What a token budget was given, paid and delivered in the last seconds: pure, on monotonic time.

Counters that only grow, and snapshots of them: a window is the difference of two moments, so no
bucket is ever cut through.
"""

from collections import deque
from dataclasses import dataclass, field

STEP = 0.1
"""Seconds between snapshots; a window may be longer than asked for by this much."""

LONGEST = 60.0
"""Seconds of the longest window."""

STANDING = 2.0
"""Seconds after which prompts that were paid, but not answered, are a backlog of the engine."""

MAX_WAITS = 4096
"""Latest waits that are kept, of those in the longest window."""


@dataclass(slots=True)
class Counters:
    """Since the start. Tokens are weighted as the budget counts them."""

    at: float
    """Monotonic seconds."""
    provisioned: float = 0.0
    paid: float = 0.0
    """Went through the budget, for answers and prompts."""
    delivered: float = 0.0
    """Written to the sockets of clients; a prompt counts with the first byte of its answer."""
    demand_seconds: float = 0.0
    """Time in which somebody waited for the budget or the engine, not for the pace only."""
    refused: int = 0
    """429s."""
    rate: float = 0.0
    """Provisioned tokens/s until `at`."""
    is_demanded: bool = False
    """Until `at`."""
    prefilling: float = 0.0
    """The least there was since the snapshot before."""


@dataclass(frozen=True, slots=True)
class Window:
    """The last seconds."""

    seconds: float
    provisioned: float
    """Tokens/s, mean."""
    paid: float
    """Tokens/s."""
    processed: float
    """Tokens/s: what was paid, but for prompts that pile up before the engine."""
    delivered: float
    """Tokens/s."""
    demand: float
    """Share of the time, 0 to 1."""
    refused: int


@dataclass(slots=True)
class Meter:
    """Whoever is about to change a counter calls `note` first."""

    now: float
    rate: float
    """Provisioned tokens/s."""
    demanding: int = 0
    """Requests in flight that wait neither for their pace nor for their client to read."""
    prefilling: float = 0.0
    """Prompts that were paid and of whose answers nothing has come yet, weighted tokens."""
    paid: float = 0.0
    delivered: float = 0.0
    refused: int = 0
    _provisioned: float = 0.0
    _demand_seconds: float = 0.0
    _least_prefilling: float = 0.0
    _snapshots: deque[Counters] = field(
        default_factory=lambda: deque(maxlen=int(LONGEST / STEP) + 10)
    )
    _waits: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=MAX_WAITS))

    def __post_init__(self) -> None:
        self._snapshots.append(self._counters())

    def note(self, now: float) -> None:
        """Time goes on until now."""
        passed = now - self.now
        self._provisioned += passed * self.rate
        if self.demanding > 0:
            self._demand_seconds += passed
        self.now = now
        self._least_prefilling = min(self._least_prefilling, self.prefilling)
        if now - self._snapshots[-1].at >= STEP:
            self._snapshots.append(self._counters())
            self._least_prefilling = self.prefilling

    def waited(self, seconds: float) -> None:
        """A request was admitted after so long."""
        self._waits.append((self.now, seconds))

    def waits(self, now: float) -> list[float]:
        """Of the requests that were admitted in the longest window, sorted."""
        return sorted(wait for at, wait in self._waits if at > now - LONGEST)

    def window(self, now: float, seconds: float) -> Window:
        """The last `seconds`, or fewer when the meter is younger."""
        self.note(now)
        then, latest = self._at(now - seconds), self._counters()
        span = now - then.at
        per_second = 1 / span if span > 0 else 0.0
        piled_up = self._backlog(now) - self._backlog(then.at)
        paid = latest.paid - then.paid
        return Window(
            seconds=span,
            provisioned=(latest.provisioned - then.provisioned) * per_second,
            paid=paid * per_second,
            processed=max(0.0, paid - piled_up) * per_second,
            delivered=(latest.delivered - then.delivered) * per_second,
            demand=(latest.demand_seconds - then.demand_seconds) * per_second,
            refused=latest.refused - then.refused,
        )

    def _counters(self) -> Counters:
        return Counters(
            self.now,
            self._provisioned,
            self.paid,
            self.delivered,
            self._demand_seconds,
            self.refused,
            self.rate,
            self.demanding > 0,
            self._least_prefilling,
        )

    def _backlog(self, moment: float) -> float:
        """What was never less in the `STANDING` seconds before: the engine was behind by it."""
        if moment >= self.now:
            near = [c.prefilling for c in self._snapshots if c.at > moment - STANDING]
            return min([*near, self._least_prefilling, self.prefilling])
        near = [c.prefilling for c in self._snapshots if moment - STANDING < c.at <= moment]
        later = (c.prefilling for c in self._snapshots if c.at > moment)
        return min(near, default=next(later, self._least_prefilling))

    def _at(self, moment: float) -> Counters:
        """The counters as they were then: a snapshot, or what nothing changed until the next."""
        later = next((c for c in self._snapshots if c.at >= moment - STEP), self._counters())
        back = later.at - moment
        if back <= 0 or later is self._snapshots[0]:
            return later
        return Counters(
            moment,
            later.provisioned - back * later.rate,
            later.paid,
            later.delivered,
            later.demand_seconds - back * later.is_demanded,
            later.refused,
        )
