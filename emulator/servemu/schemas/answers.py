"""The answer to one request while it grows: whole bodies, stream events, and the usage in both."""

import codecs
import itertools
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from servemu.errors import ApiError
from servemu_engine.base import Chunk, FinishReason, TokenLogprob, ToolCall, ToolCallDelta

_UTF8 = partial(codecs.getincrementaldecoder("utf-8"), "replace")


@dataclass(slots=True)
class Choice:
    """One of the texts that were asked for."""

    parts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    new_calls: tuple[ToolCallDelta, ...] = ()
    """What of them the event at hand brings."""
    finish_reason: FinishReason | None = None
    offset: int = 0
    """Characters of the text before the next token that is shown with its log-probability."""
    decoder: codecs.IncrementalDecoder = field(default_factory=_UTF8)
    """Of the tokens' bytes: a character may be in several."""
    started: bool = False
    shown: bool = False
    """Something of it was streamed."""

    def next_offset(self, token: TokenLogprob) -> int:
        """Where in the text the next token begins."""
        begin = self.offset
        self.offset += len(self.decoder.decode(token.raw))
        return begin

    def extend_calls(self, deltas: Sequence[ToolCallDelta]) -> None:
        """Put calls together that come in pieces."""
        for delta in deltas:
            if delta.index == len(self.tool_calls):
                self.tool_calls.append(ToolCall(delta.id, delta.name, ""))
            call = self.tool_calls[delta.index]
            whole = call.arguments + delta.arguments
            self.tool_calls[delta.index] = replace(call, arguments=whole)


@dataclass(frozen=True, slots=True)
class Shape:
    """What differs between the tasks on the wire."""

    id_prefix: str
    whole: str
    part: str
    """`object` of a whole answer, and of a part of one in a stream."""
    choice: Callable[[int, Choice], dict[str, object]]
    """(index, choice) → an item of `choices`."""
    delta: Callable[[int, Choice, str], dict[str, object]]
    """(index, choice, new text) → the item of `choices` in a stream event."""
    opens: bool = False
    """A stream begins with an event of its own."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What of the request shows in its answer."""

    shape: Shape
    model: str
    created: int
    """Seconds since the epoch."""
    prompt_tokens: int
    n: int = 1
    """Texts for each prompt."""
    echoes: Sequence[str] = ("",)
    """What stands before each prompt's texts; its length is the number of prompts."""
    suffix: str = ""
    """What is appended to each text."""
    id: str = ""
    """What follows the prefix of the answer's id; empty: a fresh one."""

    def answer(self) -> "Answer":
        """An empty one."""
        return Answer(self)


class Answer:
    """Takes the chunks of the engine. `source` is the number of the prompt a chunk belongs to."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._id = f"{asked.shape.id_prefix}{asked.id or uuid.uuid4()}"
        places = itertools.product(range(len(asked.echoes)), range(asked.n))
        self._choices = {place: Choice(offset=len(asked.echoes[place[0]])) for place in places}
        self.completion_tokens = 0
        self._prompt_tokens = asked.prompt_tokens

    def add(self, source: int, chunk: Chunk) -> None:
        """Keep a chunk for `body`."""
        choice = self._choices[source, chunk.index]
        choice.parts.append(self._text(choice, source, chunk))
        choice.logprobs.extend(chunk.logprobs)
        choice.extend_calls(chunk.tool_calls)
        choice.finish_reason = chunk.finish_reason

    def body(self) -> dict[str, object]:
        """The whole answer (facts/data_plane §3.1, §3.4)."""
        shape = self._asked.shape
        choices = [
            shape.choice(self._index(*place), choice) for place, choice in self._choices.items()
        ]
        return self._envelope(shape.whole, choices)

    def events(self, source: int, chunk: Chunk) -> Iterator[dict[str, object]]:
        """A chunk as stream events, none when nothing of it can be shown (facts/data_plane §3.2).

        The finish reason comes in an event of its own without text, the usage in every event.
        """
        choice = self._choices[source, chunk.index]
        text = self._text(choice, source, chunk)
        if self._asked.shape.opens and not choice.shown:
            yield self._event(source, chunk.index, "")
        if text or chunk.logprobs:
            choice.logprobs = list(chunk.logprobs)
            yield self._event(source, chunk.index, text)
        if chunk.tool_calls:
            choice.logprobs, choice.new_calls = [], chunk.tool_calls
            yield self._event(source, chunk.index, "")
            choice.new_calls = ()
        if chunk.finish_reason is not None:
            choice.logprobs = []
            choice.finish_reason = chunk.finish_reason
            yield self._event(source, chunk.index, "")

    def unfinished(self) -> Iterator[tuple[int, Chunk]]:
        """For each text that has no end yet, the chunk that ends it where it is."""
        for (source, number), choice in self._choices.items():
            if choice.finish_reason is None:
                yield source, Chunk(number, "", 0, finish_reason="length")

    def closing(self) -> None:
        """`[DONE]` is the end."""

    def failure(self, error: ApiError) -> dict[str, object]:
        """An event like an error body: GUESS, no shape is known (facts/data_plane §3.2)."""
        return {"error_code": error.error_code, "message": error.message}

    def _text(self, choice: Choice, source: int, chunk: Chunk) -> str:
        self.completion_tokens += chunk.num_tokens
        if chunk.num_prompt_tokens is not None and len(self._asked.echoes) == 1:
            self._prompt_tokens = chunk.num_prompt_tokens
        text = chunk.text if choice.started else self._asked.echoes[source] + chunk.text
        choice.started = True
        return text if chunk.finish_reason is None else text + self._asked.suffix

    def _event(self, source: int, number: int, text: str) -> dict[str, object]:
        choice = self._choices[source, number]
        delta = self._asked.shape.delta(self._index(source, number), choice, text)
        choice.shown = True
        return self._envelope(self._asked.shape.part, [delta])

    def _index(self, source: int, number: int) -> int:
        """With several prompts the prompt's number (facts/data_plane §3.4), else the text's."""
        return source if len(self._asked.echoes) > 1 else number

    def _envelope(self, name: str, choices: list[dict[str, object]]) -> dict[str, object]:
        prompt = self._prompt_tokens
        return {
            "id": self._id,
            "object": name,
            "created": self._asked.created,
            "model": self._asked.model,
            "choices": choices,
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": self.completion_tokens,
                "total_tokens": prompt + self.completion_tokens,
            },
        }


def shown_logprob(token: TokenLogprob) -> float:
    """JSON has no -Infinity; -9999 is what OpenAI sends for a token that cannot come."""
    return max(token.logprob, -9999.0)
