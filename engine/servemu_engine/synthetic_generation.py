"""Answers of engines without a model: tokens into chunks, and their reading in turns."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass

from servemu_engine.base import Chunk, FinishReason, Sampling, TokenLogprob
from servemu_engine.stopping import StopCut
from servemu_engine.synthetic_text import made_up_logprob

_CHUNKS_PER_TURN = 64
"""Chunks taken in a row before other tasks of the event loop get a turn."""


class SyntheticGeneration:
    """The running answers of one request, a chunk of each in turn."""

    def __init__(self, check_open: Callable[[], None], answers: Iterable[Iterator[Chunk]]) -> None:
        """`check_open` raises once the engine is closed."""
        self._check_open = check_open
        self._answers = deque(answers)
        self._taken = 0

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        if self._answers:
            self._check_open()
        self._taken += 1
        if self._taken % _CHUNKS_PER_TURN == 0:
            await asyncio.sleep(0)  # nothing here ever waits: without it a reader starves the loop
        while self._answers:
            chunk = next(self._answers[0], None)
            if chunk is not None:
                self._answers.rotate(-1)
                return chunk
            self._answers.popleft()
        raise StopAsyncIteration

    async def __aenter__(self) -> "SyntheticGeneration":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._answers.clear()


@dataclass(frozen=True, slots=True)
class Plan:
    """How one answer is cut into chunks."""

    index: int
    max_tokens: int
    sampling: Sampling
    tokens_per_chunk: int


def chunks(plan: Plan, tokens: Iterator[tuple[str, bool]]) -> Iterator[Chunk]:
    """One answer from its tokens, each with whether the answer ends there by itself.

    The last chunk, and only that, has the finish reason.
    """
    if plan.max_tokens < 1:
        yield Chunk(plan.index, "", 0, (), "length")
        return
    cut = StopCut(plan.sampling.stop)
    logprobs: list[TokenLogprob] = []
    text, num_unsent = "", 0
    for count, (piece, ends_here) in enumerate(tokens, start=1):
        num_unsent += 1
        text += cut.push(piece)
        if plan.sampling.logprobs:
            logprobs.append(made_up_logprob(piece, count, plan.sampling.top_logprobs))
        reason: FinishReason | None = None
        if cut.found or ends_here:
            reason = "stop"
        elif count >= plan.max_tokens:
            reason = "length"
        elif num_unsent < plan.tokens_per_chunk or not text:
            continue
        if reason is not None:
            text += cut.held
        stop = cut.found
        yield Chunk(plan.index, text, num_unsent, tuple(logprobs), reason, stop_string=stop)
        if reason is not None:
            return
        logprobs.clear()
        text, num_unsent = "", 0
