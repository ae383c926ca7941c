"""The token budget of an endpoint: tokens/s, shared by everything that runs on it."""

import math

from servemu.clock import Clock
from servemu.throughput.line import Line

BURST_SECONDS = 0.05
"""Time an idle budget keeps. Enough to make up for late wake-ups, too little to measure."""

MAX_WAIT_SECONDS = 10.0


class TokenBudget:
    """Input and output tokens at `rate` tokens/s, first come first served.

    Exact arithmetic on virtual time: a payment of n tokens is due n / rate after the one before,
    however late its payer wakes up, so nothing is lost and nothing paid twice. Over any time t
    at most rate * (t + burst_seconds) tokens are paid, besides the payment that ends first in it.
    """

    def __init__(
        self,
        rate: float | None,
        clock: Clock,
        *,
        burst_seconds: float = BURST_SECONDS,
        max_wait: float = MAX_WAIT_SECONDS,
    ) -> None:
        """`rate` in tokens/s, None: unlimited (pay-per-token). `max_wait`: see `admission`."""
        self._clock = clock
        self._burst = burst_seconds
        self._paid_until = -math.inf
        self._line = Line()
        self.max_wait = max_wait
        self.entrance = Line()
        """Requests that wait to be admitted; its head is the only one that pays its prompt."""
        self.in_flight = 0
        """Requests that wait to be admitted, or run."""
        self.paid = 0
        """Tokens paid since the start, for the throughput certificate."""
        self.set_rate(rate)

    @property
    def rate(self) -> float:
        """Tokens/s; infinite when unlimited."""
        return self._rate

    def set_rate(self, rate: float | None) -> None:
        """Change the rate: replicas came or went. A payment under way ends as it began."""
        if rate is not None and not rate > 0:
            raise ValueError(f"a token budget needs a rate above 0 tokens/s, got {rate}")
        self._rate = math.inf if rate is None else rate

    @property
    def tokens_due(self) -> int:
        """Tokens whose payers stand in line now."""
        return self._line.tokens

    async def take(self, tokens: int) -> None:
        """Wait for the turn, then until `tokens` are paid. Cancelled: what is unpaid goes back."""
        if tokens <= 0:
            return
        if math.isinf(self._rate):
            self.paid += tokens
            return
        arrived = self._clock.monotonic()
        due = max(arrived - self._burst, self._paid_until) + tokens / self._rate
        if due <= arrived and not len(self._line):
            self._paid_until = due
            self.paid += tokens
            return
        async with self._line.turn(tokens):
            await self._pay(tokens, arrived)

    async def _pay(self, tokens: int, arrived: float) -> None:
        start = max(arrived - self._burst, self._paid_until)
        due = start + tokens / self._rate
        try:
            if due > self._clock.monotonic():
                await self._clock.sleep_until(due)
        except BaseException:
            # The time until now was the leaver's: it cannot be given to those behind as a burst.
            self._paid_until = max(self._paid_until, self._clock.monotonic() - self._burst)
            raise
        self._paid_until = due
        self.paid += tokens
