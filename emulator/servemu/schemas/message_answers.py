"""The Messages API of Anthropic: the answer, whole and as named events.

As anthropic-sdk-python reads them; that the service passes on the same fields is a GUESS.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from servemu.conversation import Head, Payload
from servemu.errors import ApiError
from servemu_engine.base import Chunk, FinishReason, ToolCallDelta

STOP_REASONS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
}
"""facts/data_plane §3.1; an end by a stop string is a `stop_sequence`."""


@dataclass(frozen=True, slots=True)
class ShownMessage:
    """What of the request shows in its answer."""

    head: Head

    @property
    def prompt_tokens(self) -> int:
        return self.head.prompt_tokens

    def answer(self) -> "MessageAnswer":
        """An empty one."""
        return MessageAnswer(self.head)


@dataclass(slots=True)
class Block:
    """A text or the use of a tool, as far as it has come."""

    text: str = ""
    """Of a tool: its input as JSON."""
    id: str = ""
    """Empty: a text."""
    name: str = ""

    def new(self) -> Payload:
        """Before anything of it came."""
        if not self.id:
            return {"type": "text", "text": ""}
        return {"type": "tool_use", "id": self.id, "name": self.name, "input": {}}

    def shown(self) -> Payload:
        """As an item of `content`."""
        if not self.id:
            return {"type": "text", "text": self.text}
        return {**self.new(), "input": _object(self.text)}


class MessageAnswer:
    """Takes the chunks of the engine; one text, and the tools used after it."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._blocks: list[Block] = []
        self._uses: dict[int, Block] = {}
        self._is_started = False
        self._input_tokens = head.prompt_tokens
        self._output_tokens = 0
        self._stop_reason: str | None = None
        self._stop_sequence: str | None = None

    def add(self, source: int, chunk: Chunk) -> None:
        """Keep a chunk for `body`."""
        for _ in self.events(source, chunk):
            pass

    def body(self) -> Payload:
        """The whole message."""
        return {
            "id": f"msg_{self._head.id.replace('-', '')}",
            "type": "message",
            "role": "assistant",
            "model": self._head.model,
            "content": [block.shown() for block in self._blocks],
            "stop_reason": self._stop_reason,
            "stop_sequence": self._stop_sequence,
            "usage": {
                "input_tokens": self._input_tokens,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": self._output_tokens,
            },
        }

    def events(self, source: int, chunk: Chunk) -> Iterator[Payload]:
        """A chunk as named events."""
        self._output_tokens += chunk.num_tokens
        if chunk.num_prompt_tokens is not None:
            self._input_tokens = chunk.num_prompt_tokens
        if not self._is_started:
            self._is_started = True
            yield {"type": "message_start", "message": self.body()}
        if chunk.text:
            if not self._blocks or self._blocks[-1].id:
                yield from self._open(Block())
            yield from self._grow("text_delta", "text", chunk.text)
        for delta in chunk.tool_calls:
            yield from self._use(delta)
        if chunk.finish_reason is not None:
            yield from self._close()
            yield self._stop(STOP_REASONS[chunk.finish_reason], chunk.stop_string)

    def _stop(self, reason: str, stop_string: str) -> Payload:
        self._stop_reason = "stop_sequence" if stop_string else reason
        self._stop_sequence = stop_string or None
        return {
            "type": "message_delta",
            "delta": {"stop_reason": self._stop_reason, "stop_sequence": self._stop_sequence},
            "usage": {"output_tokens": self._output_tokens},
        }

    def unfinished(self) -> Iterator[tuple[int, Chunk]]:
        """The chunk that ends the text where it is."""
        if self._stop_reason is None:
            yield 0, Chunk(0, "", 0, finish_reason="length")

    def closing(self) -> Payload:
        """Nothing more comes."""
        return {"type": "message_stop"}

    def failure(self, error: ApiError) -> Payload:
        """Anthropic's own event for it; what the service sends is not known (GUESS)."""
        kind = "rate_limit_error" if error.status == 429 else "api_error"
        return {"type": "error", "error": {"type": kind, "message": error.message}}

    def _use(self, delta: ToolCallDelta) -> Iterator[Payload]:
        if delta.index not in self._uses:
            block = Block("", delta.id.replace("call_", "toolu_"), delta.name)
            self._uses[delta.index] = block
            yield from self._open(block)
        if delta.arguments:
            yield from self._grow("input_json_delta", "partial_json", delta.arguments)

    def _open(self, block: Block) -> Iterator[Payload]:
        """The block before it is over: one at a time."""
        yield from self._close()
        self._blocks.append(block)
        place = len(self._blocks) - 1
        yield {"type": "content_block_start", "index": place, "content_block": block.new()}

    def _grow(self, kind: str, field: str, text: str) -> Iterator[Payload]:
        self._blocks[-1].text += text
        delta = {"type": kind, field: text}
        yield {"type": "content_block_delta", "index": len(self._blocks) - 1, "delta": delta}

    def _close(self) -> Iterator[Payload]:
        if self._blocks:
            yield {"type": "content_block_stop", "index": len(self._blocks) - 1}


def _object(text: str) -> Any:
    """Arguments that were cut off are none."""
    try:
        return json.loads(text or "{}")
    except ValueError:
        return {}
