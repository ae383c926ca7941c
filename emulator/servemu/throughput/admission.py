"""Who may come in: the bounds of the queue before a token budget, and a true Retry-After."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass

from servemu.errors import RequestLimitExceeded
from servemu.serving import Served
from servemu.throughput.budget import Admitted, TokenBudget
from servemu.throughput.fair_queue import PROMPT_SHARE, FairQueue
from servemu.throughput.terms import Bounds

OVERLOADED = (
    "Too many concurrent requests. Consider increasing the provisioned concurrency of the served "
    "entity."
)
"""The documented text for an endpoint at its limit; that provisioned throughput uses the same is a
GUESS (facts/provisioned_throughput §3)."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A 429. `retry_after` in whole seconds: by then the queue is short enough, if nobody else
    comes."""

    retry_after: int


def refusal(queue: FairQueue, bounds: Bounds) -> Refusal | None:
    """Whether the queue is full: pure, the same live and simulated.

    It is full when the prompts ahead would take longer than `bounds.seconds`, at the share of the
    rate that prompts have even while streams run, or are more than `bounds.tokens`. How long the
    asked prompt is does not matter: one that is longer than the bound is served in its turn.
    """
    most = min(bounds.tokens, bounds.seconds * queue.rate * PROMPT_SHARE)
    too_many = queue.waiting_tokens - most
    if too_many <= 0:
        return None
    seconds = too_many / (queue.rate * PROMPT_SHARE) + queue.lag_seconds
    return Refusal(max(1, math.ceil(seconds)))


def refuse_when_full(budget: TokenBudget) -> None:
    """Raises `RequestLimitExceeded`. When too many are in flight, nobody knows when one will be
    over: its Retry-After of 1 is no promise."""
    refused = None if budget.queue is None else refusal(budget.queue, budget.terms.bounds)
    if refused is None and budget.in_flight >= budget.terms.bounds.in_flight:
        refused = Refusal(1)
    if refused is not None:
        budget.refused()
        raise RequestLimitExceeded(OVERLOADED, refused.retry_after)


@asynccontextmanager
async def enter(served: Served, prompt_tokens: int) -> AsyncIterator[Admitted]:
    """Wait for the turn, pay the prompt, and count as in flight until the `async with` is left.

    Raises `RequestLimitExceeded` at once, before anything was paid. Cancelled: the place is freed
    and the unpaid rest of the prompt goes back.
    """
    limits = served.limits
    taking = nullcontext() if limits is None else limits.taking(served.workspace, served.endpoint)
    with taking:
        refuse_when_full(served.budget)
        async with served.budget.enter(prompt_tokens) as admitted:
            yield admitted
