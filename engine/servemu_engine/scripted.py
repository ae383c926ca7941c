"""Answers that somebody wrote beforehand: text and tool calls, given token by token."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from servemu_engine.base import (
    Chunk,
    FinishReason,
    PreparedRequest,
    ToolCall,
    ToolCallDelta,
)
from servemu_engine.synthetic_generation import Plan, SyntheticGeneration, chunks
from servemu_engine.synthetic_text import pieces


@dataclass(frozen=True, slots=True)
class Script:
    """What is said. The request's `max_tokens`, stop strings and `n` hold as for any answer."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    """Made after the text. A call without an id gets one that follows from the prompt."""
    finish_reason: FinishReason | None = None
    """Of an answer that was said to its end; None: `tool_calls` if there are any, else `stop`."""


def scripted(prepared: PreparedRequest, script: Script) -> SyntheticGeneration:
    """The script as an answer to `prepared`, in tokens of the synthetic engine, one a chunk."""
    answers = [answer(prepared, script, index) for index in range(prepared.request.n)]
    return SyntheticGeneration(_always_open, answers)


def _always_open() -> None:
    """Nothing runs here that an engine's end could stop."""


def answer(prepared: PreparedRequest, script: Script, index: int) -> Iterator[Chunk]:
    """One of the `n` answers, a token a chunk."""
    plan = Plan(index, prepared.max_tokens, prepared.request.sampling, tokens_per_chunk=1)
    end: FinishReason = script.finish_reason or ("tool_calls" if script.tool_calls else "stop")
    used = length = 0
    for chunk in chunks(plan, _tokens(script.text)):
        used += chunk.num_tokens
        length += len(chunk.text)
        if chunk.finish_reason is None or length < len(script.text):
            yield chunk
            continue
        yield replace(chunk, finish_reason=None if script.tool_calls else end)
    if script.text and (length < len(script.text) or not script.tool_calls):
        return
    for delta in _deltas(prepared, script, index):
        if used >= prepared.max_tokens:
            yield Chunk(index, "", 0, finish_reason="length")
            return
        used += 1
        yield Chunk(index, "", 1, tool_calls=(delta,))
    yield Chunk(index, "", 0, finish_reason=end)


def _tokens(text: str) -> Iterator[tuple[str, bool]]:
    words = pieces(text)
    for place, piece in enumerate(words, start=1):
        yield piece, place == len(words)


def _deltas(prepared: PreparedRequest, script: Script, index: int) -> Iterator[ToolCallDelta]:
    for number, call in enumerate(script.tool_calls):
        made_up = f"{prepared.token_ids} {prepared.request.prompt} {index} {number}".encode()
        id = call.id or f"call_{hashlib.blake2b(made_up, digest_size=12).hexdigest()}"
        yield ToolCallDelta(number, id=id, name=call.name)
        for piece in pieces(call.arguments):
            yield ToolCallDelta(number, arguments=piece)
