"""How much may be paid by when: exact arithmetic on a time that only payments move."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

BURST_SECONDS = 0.05
"""Time an idle budget keeps. Enough to make up for late wake-ups, too little to measure."""

MAX_RATE = 1e12
"""Tokens/s; more is a mistake, and would drown the arithmetic."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A bound: over any time t at most `tokens_per_second` * (t + `burst_seconds`) tokens.

    Raises `ValueError` for a rate that is not above 0 and finite.
    """

    tokens_per_second: float
    burst_seconds: float = BURST_SECONDS

    def __post_init__(self) -> None:
        if not 0 < self.tokens_per_second <= MAX_RATE:
            raise ValueError(
                "a token budget needs a rate above 0 tokens/s and at most "
                f"{MAX_RATE:g}, got {self.tokens_per_second}"
            )
        if not 0 <= self.burst_seconds < math.inf:
            raise ValueError(f"a burst is 0 s or longer, got {self.burst_seconds}")


class Allowance:
    """One or more rates that hold at once; the first is the one that was provisioned.

    A payment of n tokens is due n / rate after the one before, however late anybody wakes up, so
    nothing is lost and nothing paid twice.
    """

    def __init__(self, rates: Sequence[Rate]) -> None:
        self._rates = tuple(rates)
        self._until = [-math.inf] * len(self._rates)
        """For each rate: the time up to which it is used up."""

    @property
    def tokens_per_second(self) -> float:
        return self._rates[0].tokens_per_second

    def set_rates(self, rates: Sequence[Rate]) -> None:
        """Replicas came or went; what was paid stays paid."""
        now = self._until[0]
        self._rates = tuple(rates)
        self._until = (self._until + [now] * len(rates))[: len(rates)]

    def due(self, tokens: float) -> float:
        """When `tokens` are paid, if nobody else pays before (monotonic seconds)."""
        return max(
            until + tokens / rate.tokens_per_second
            for until, rate in zip(self._until, self._rates, strict=True)
        )

    def pay(self, tokens: float) -> tuple[float, ...]:
        """The payment that is `due` begins. Gives what `take_back` wants, should it be ended."""
        before, at = tuple(self._until), self.due(tokens)
        for number, rate in enumerate(self._rates):
            until = self._until[number] + tokens / rate.tokens_per_second
            self._until[number] = max(until, at - rate.burst_seconds)
        return before

    def take_back(self, before: tuple[float, ...], now: float) -> None:
        """The last payment ends now, unpaid: its time is gone, but for the burst."""
        if len(before) == len(self._until):
            self._until = list(before)
        self.idle(now)

    def idle(self, now: float) -> None:
        """Nobody paid until now: only the burst of that time is kept."""
        for number, rate in enumerate(self._rates):
            self._until[number] = max(self._until[number], now - rate.burst_seconds)
