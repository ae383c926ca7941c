"""Who may come in: a bounded queue before the token budget, then a 429 with a true Retry-After."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from servemu.errors import RequestLimitExceeded
from servemu.serving import Served
from servemu.throughput.budget import TokenBudget

MAX_IN_FLIGHT = 1024
"""Requests of one endpoint at a time (facts/data_plane §5: concurrency 1024 per model)."""

SLICE_SECONDS = 0.1
"""A prompt is paid in slices of this much budget, so that running streams keep moving."""

OVERLOADED = (
    "Too many concurrent requests. Consider increasing the provisioned concurrency of the served "
    "entity."
)
"""The documented text for an endpoint at its limit; that provisioned throughput uses the same is a
GUESS (facts/provisioned_throughput §3)."""


@asynccontextmanager
async def enter(served: Served, prompt_tokens: int) -> AsyncIterator[None]:
    """Wait for the turn, pay the prompt, and count as in flight until the `async with` is left.

    Raises `RequestLimitExceeded` at once, before anything was paid, when the prompts ahead would
    take longer than the budget's `max_wait`, or too many requests are in flight. Cancelled: the
    place is freed and the unpaid rest of the prompt goes back.
    """
    budget = served.budget
    refuse_when_full(budget)
    budget.in_flight += 1
    try:
        await _pay_prompt(budget, prompt_tokens)
        yield
    finally:
        budget.in_flight -= 1


def refuse_when_full(budget: TokenBudget) -> None:
    """Raises `RequestLimitExceeded`; after its Retry-After the queue is short enough again."""
    too_long = seconds_ahead(budget) - budget.max_wait
    if too_long > 0:
        # What the head has paid shows slice by slice.
        raise RequestLimitExceeded(OVERLOADED, math.ceil(too_long + SLICE_SECONDS))
    if budget.in_flight >= MAX_IN_FLIGHT:
        raise RequestLimitExceeded(OVERLOADED, 1)


def seconds_ahead(budget: TokenBudget) -> float:
    """How long a request that comes now waits before its own prompt is paid, at today's load.

    Between two slices of prompts every running stream gets one payment through.
    """
    prompts = budget.entrance.tokens
    paying = min(budget.entrance.head_tokens, _slice(budget, prompts))
    streams = max(0, budget.tokens_due - paying)
    slices = max(1, math.ceil(prompts / max(1, _slice(budget, prompts))))
    return (prompts + slices * streams) / budget.rate


def _slice(budget: TokenBudget, tokens: int) -> int:
    """Most tokens to pay in one turn, of `tokens` that are left."""
    return int(min(tokens, max(1.0, budget.rate * SLICE_SECONDS)))


async def _pay_prompt(budget: TokenBudget, tokens: int) -> None:
    async with budget.entrance.turn(tokens) as place:
        while place.tokens > 0:
            paying = _slice(budget, place.tokens)
            await budget.take(paying)
            budget.entrance.served(place, paying)
