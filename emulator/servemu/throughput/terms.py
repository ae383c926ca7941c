"""What a token budget is agreed on: weights, bounds of its queue, and whether it may surge."""

import math
from dataclasses import dataclass

from servemu.throughput.allowance import BURST_SECONDS, Rate


@dataclass(frozen=True, slots=True)
class Weights:
    """What one token takes from the budget. That output costs more than input is DOC, how much
    more is not known (facts/provisioned_throughput §3): data of the family, 1 and 1 by default."""

    input: float = 1.0
    output: float = 1.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """When the queue is full; the values are settings. Concurrency is DOC (facts/data_plane §5)."""

    seconds: float = 10.0
    """A request that would wait longer for its turn is refused."""
    tokens: float = math.inf
    """Of all prompts that wait."""
    in_flight: int = 1024
    """Requests of one served entity at a time."""


@dataclass(frozen=True, slots=True)
class Surge:
    """`burst_scaling_enabled` (model units): more than was provisioned, for a while.

    That it may is DOC; how much and for how long is a GUESS.
    """

    factor: float
    """Of the provisioned rate."""
    seconds: float
    """Unused time that is kept, to be used up at the higher rate."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Of one served entity."""

    weights: Weights = Weights()
    bounds: Bounds = Bounds()
    surge: Surge | None = None
    burst_seconds: float = BURST_SECONDS

    def rates(self, tokens_per_second: float) -> tuple[Rate, ...]:
        """The rates that hold at once. Raises `ValueError` for one that never pays."""
        if self.surge is None:
            return (Rate(tokens_per_second, self.burst_seconds),)
        return (
            Rate(tokens_per_second, max(self.surge.seconds, self.burst_seconds)),
            Rate(tokens_per_second * self.surge.factor, self.burst_seconds),
        )
