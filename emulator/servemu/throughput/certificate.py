"""The certificate of a token budget: what was provisioned, and what came of it. Pure.

Tokens are input and output, weighted as the family's weights say. `delivered` is what was written
to the sockets of clients, so nothing is claimed that nobody got.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from servemu.throughput.budget import TokenBudget
from servemu.throughput.meter import Window

WINDOWS = (1.0, 10.0, 60.0)
"""Seconds."""

DEMANDED = 0.99
"""Share of a window in which somebody must have asked for tokens: with less, what is missing says
nothing about the emulator."""

BOUND_WINDOW = 10.0
"""Seconds over which it is judged whether the machine is the limit."""

BOUND_DEMAND = 0.95

TOLERANCE = 0.01
"""Of the provisioned rate: the promise is one per cent."""

YOUNGEST = 1.0
"""Seconds that must have been measured before the machine is judged."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """Of a served entity; 0 of one that is scaled to zero."""

    current: int
    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One window; rates in tokens/s."""

    seconds: float
    """Asked for."""
    measured_seconds: float
    """Less while the budget is younger."""
    provisioned: float
    processed: float
    """Through the budget and the engine."""
    delivered: float
    demand: float
    """Share of the time in which somebody waited for the budget or the engine, 0 to 1."""
    refused: int
    """429s of the queue before the budget, and of too many requests at a time."""

    @property
    def error_percent(self) -> float | None:
        """Of `processed` to `provisioned`. None: there was too little demand to fill it."""
        if self.provisioned <= 0 or self.demand < DEMANDED:
            return None
        return 100 * (self.processed / self.provisioned - 1)

    @property
    def is_engine_bound(self) -> bool:
        """While tokens were asked for, the machine gave less than the budget would have."""
        if self.measured_seconds < YOUNGEST or self.demand < BOUND_DEMAND:
            return False
        return self.processed < (1 - TOLERANCE) * self.provisioned * self.demand


@dataclass(frozen=True, slots=True)
class Certificate:
    """Of a served entity, or of several together."""

    provisioned: float | None
    """Tokens/s now; None: unlimited (pay-per-token, external)."""
    burst: float | None = None
    """Tokens/s of a burst, where model units may."""
    replicas: Replicas | None = None
    in_flight: int = 0
    queue_requests: int = 0
    queue_tokens: float = 0.0
    waits: tuple[float, ...] = ()
    """Seconds before the requests of the longest window were admitted, sorted."""
    refused: int = 0
    """Since the budget began."""
    windows: tuple[Measured, ...] = field(
        default_factory=lambda: tuple(Measured(s, 0.0, 0.0, 0.0, 0.0, 0.0, 0) for s in WINDOWS)
    )

    @property
    def engine_bound(self) -> bool:
        """Judged over `BOUND_WINDOW`."""
        return any(w.is_engine_bound for w in self.windows if w.seconds == BOUND_WINDOW)


def of_budget(
    budget: TokenBudget | None, rate: float | None, replicas: Replicas | None, now: float
) -> Certificate:
    """`rate`: tokens/s of the replicas that serve at `now` (monotonic seconds), 0 while none does.
    No budget: nobody has asked yet."""
    if budget is None:
        return Certificate(rate, replicas=replicas)
    queue, surge = budget.queue, budget.terms.surge
    windows = tuple(_measured(budget.meter.window(now, s), s, rate) for s in WINDOWS)
    return Certificate(
        provisioned=rate,
        burst=None if surge is None or rate is None else rate * surge.factor,
        replicas=replicas,
        in_flight=budget.in_flight,
        queue_requests=0 if queue is None else queue.waiting,
        queue_tokens=0.0 if queue is None else queue.waiting_tokens,
        waits=tuple(budget.meter.waits(now)),
        refused=budget.meter.refused,
        windows=windows,
    )


def together(certificates: Sequence[Certificate]) -> Certificate:
    """The sum. Unlimited, if one is. Demand is the mean, by what each provides."""
    if len(certificates) == 1:
        return certificates[0]
    rates = [one.provisioned for one in certificates]
    known = [one.replicas for one in certificates if one.replicas is not None]
    return Certificate(
        provisioned=_sum(rates),
        burst=_sum([one.burst or one.provisioned for one in certificates])
        if any(one.burst for one in certificates)
        else None,
        replicas=Replicas(
            sum(one.current for one in known),
            sum(one.minimum for one in known),
            sum(one.maximum for one in known),
        )
        if known
        else None,
        in_flight=sum(one.in_flight for one in certificates),
        queue_requests=sum(one.queue_requests for one in certificates),
        queue_tokens=sum(one.queue_tokens for one in certificates),
        waits=tuple(sorted(wait for one in certificates for wait in one.waits)),
        refused=sum(one.refused for one in certificates),
        windows=tuple(
            _sum_of([one.windows[number] for one in certificates]) for number in range(len(WINDOWS))
        ),
    )


def rendered(certificate: Certificate) -> dict[str, object]:
    """As JSON has it."""
    return {
        "provisioned": _rounded(certificate.provisioned),
        "burst": _rounded(certificate.burst),
        "engine_bound": certificate.engine_bound,
        "replicas": None if certificate.replicas is None else asdict(certificate.replicas),
        "in_flight": certificate.in_flight,
        "queue": {
            "requests": certificate.queue_requests,
            "tokens": round(certificate.queue_tokens, 2),
            "wait_p50": percentile(certificate.waits, 0.50),
            "wait_p95": percentile(certificate.waits, 0.95),
        },
        "refused": certificate.refused,
        "windows": [_window(window) for window in certificate.windows],
    }


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Nearest rank. None: of nothing."""
    if not ordered:
        return None
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 4)


def _measured(window: Window, seconds: float, rate: float | None) -> Measured:
    return Measured(
        seconds=seconds,
        measured_seconds=window.seconds,
        provisioned=0.0 if not rate else window.provisioned,
        processed=window.processed,
        delivered=window.delivered,
        demand=min(1.0, window.demand),
        refused=window.refused,
    )


def _sum_of(windows: Sequence[Measured]) -> Measured:
    provisioned = sum(window.provisioned for window in windows)
    demanded = sum(window.provisioned * window.demand for window in windows)
    return Measured(
        seconds=windows[0].seconds if windows else 0.0,
        measured_seconds=max((window.measured_seconds for window in windows), default=0.0),
        provisioned=provisioned,
        processed=sum(window.processed for window in windows),
        delivered=sum(window.delivered for window in windows),
        demand=demanded / provisioned if provisioned else 0.0,
        refused=sum(window.refused for window in windows),
    )


def _window(window: Measured) -> dict[str, object]:
    error = window.error_percent
    return {
        "seconds": window.seconds,
        "measured_seconds": round(window.measured_seconds, 2),
        "provisioned": _rounded(window.provisioned),
        "processed": _rounded(window.processed),
        "delivered": _rounded(window.delivered),
        "demand": round(window.demand, 4),
        "error_percent": None if error is None else round(error, 3) + 0.0,
        "refused": window.refused,
    }


def _sum(rates: Sequence[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return sum(known) if len(known) == len(rates) else None


def _rounded(tokens: float | None) -> float | None:
    return None if tokens is None else round(tokens, 2) + 0.0
