"""The pace of the model that is played: time to the first token, and for each further one."""

from dataclasses import dataclass

from servemu.clock import Clock
from servemu.throughput.budget import TokenBudget

REFERENCE_PROMPT = 3500
"""Tokens of the prompt that `ttft_ms` is for (facts/provisioned_throughput §3)."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Latency = TTFT + TPOT x output tokens (DOC, facts/provisioned_throughput §3); the figures
    are a GUESS and stand in the catalogue."""

    ttft: float
    """Seconds, for a prompt of `REFERENCE_PROMPT` tokens on an idle endpoint."""
    prefill_share: float
    """The part of `ttft` that grows with the prompt, 0 to 1."""
    tpot: float
    """Seconds for each token after the first."""
    load_factor: float
    """At full load everything takes 1 + this times as long."""

    def first(self, prompt_tokens: int, load: float) -> float:
        """Seconds to the first token."""
        grows = self.prefill_share * prompt_tokens / REFERENCE_PROMPT
        return self.ttft * (1 - self.prefill_share + grows) * self.slowdown(load)

    def further(self, tokens: int, load: float) -> float:
        """Seconds for so many more tokens."""
        return self.tpot * tokens * self.slowdown(load)

    def slowdown(self, load: float) -> float:
        """`load`: see `load_of`."""
        return 1 + self.load_factor * min(1.0, max(0.0, load))


def load_of(budget: TokenBudget, pace: Pace) -> float:
    """The share of the budget that the running streams would take at the model's own pace."""
    rate = budget.rate
    if rate is None or pace.tpot <= 0:
        return 0.0
    return (budget.in_flight - 1) / (rate * pace.tpot)


class Paced:
    """One answer at the model's pace, never before what the budget has let through.

    The times follow from the arrival, not from when somebody woke up; whoever is held up by the
    budget goes on from there, without catching up.
    """

    def __init__(self, pace: Pace, budget: TokenBudget, clock: Clock, arrived: float) -> None:
        """`arrived`: monotonic seconds."""
        self._pace = pace
        self._budget = budget
        self._clock = clock
        self._arrived = arrived
        self._due: dict[tuple[int, int], float] = {}
        """Of each text: when its last token was due."""

    async def first(self, prompt_tokens: int) -> None:
        """Wait for the first token of the whole request; embeddings: for the call."""
        load = load_of(self._budget, self._pace)
        self._arrived += self._pace.first(prompt_tokens, load)
        await self._sleep_until(self._arrived)

    async def token(self, text: tuple[int, int], tokens: int) -> None:
        """Wait until so many more tokens of the text are due; they have been paid."""
        load = load_of(self._budget, self._pace)
        last = self._due.get(text)
        if last is None:
            due = self._arrived + self._pace.further(max(0, tokens - 1), load)
        else:
            due = last + self._pace.further(tokens, load)
        self._due[text] = max(due, self._clock.monotonic())
        await self._sleep_until(due)

    async def _sleep_until(self, due: float) -> None:
        if due > self._clock.monotonic():
            with self._budget.pacing():
                await self._clock.sleep_until(due)
