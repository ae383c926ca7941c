"""The Responses API of OpenAI: the answer, whole and as typed events.

As openai-python reads them; that the service sends the same fields is a GUESS: no answer of it was
recorded. There is no `[DONE]`: `response.completed` (or `.incomplete`) is the end.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from servemu.conversation import Head, Payload
from servemu.errors import ApiError
from servemu_engine.base import Chunk, FinishReason, ToolCallDelta


@dataclass(frozen=True, slots=True)
class Shown:
    """What of the request shows in its answer."""

    head: Head
    echoes: tuple[tuple[str, object], ...]
    """Fields that the response repeats."""

    @property
    def prompt_tokens(self) -> int:
        return self.head.prompt_tokens

    def answer(self) -> "ShownResponse":
        """An empty one."""
        return ShownResponse(self)


@dataclass(slots=True)
class OutputItem:
    """A message or a call, as far as it has come."""

    id: str
    text: str = ""
    """Of a call: its arguments."""
    call_id: str = ""
    """Empty: a message."""
    name: str = ""
    status: str = "in_progress"

    @property
    def is_call(self) -> bool:
        return bool(self.call_id)

    def part(self) -> Payload:
        """The one part of a message."""
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": []}

    def shown(self, *, is_new: bool = False) -> Payload:
        """As an item of `output`. New: before anything of it was said."""
        if self.is_call:
            return {
                "type": "function_call",
                "id": self.id,
                "call_id": self.call_id,
                "name": self.name,
                "arguments": self.text,
                "status": self.status,
            }
        return {
            "type": "message",
            "id": self.id,
            "role": "assistant",
            "status": self.status,
            "content": [] if is_new else [self.part()],
        }


class ShownResponse:
    """Takes the chunks of the engine; one text, and the calls after it."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._hex = shown.head.id.replace("-", "")
        self._items: list[OutputItem] = []
        self._calls: dict[int, OutputItem] = {}
        self._sequence = 0
        self._prompt_tokens = shown.prompt_tokens
        self._output_tokens = 0
        self._finish_reason: FinishReason | None = None

    def add(self, source: int, chunk: Chunk) -> None:
        """Keep a chunk for `body`."""
        for _ in self.events(source, chunk):
            pass

    def body(self) -> Payload:
        """The whole response."""
        return self._response(self._status())

    def events(self, source: int, chunk: Chunk) -> Iterator[Payload]:
        """A chunk as typed events."""
        self._output_tokens += chunk.num_tokens
        if chunk.num_prompt_tokens is not None:
            self._prompt_tokens = chunk.num_prompt_tokens
        if self._sequence == 0:
            yield self._event("response.created", response=self._response("in_progress"))
            yield self._event("response.in_progress", response=self._response("in_progress"))
        if chunk.text:
            yield from self._say(chunk.text)
        for delta in chunk.tool_calls:
            yield from self._call(delta)
        if chunk.finish_reason is not None:
            if not self._items:
                yield from self._open(OutputItem(f"msg_{self._hex}"))
            self._finish_reason = chunk.finish_reason
            yield from self._close(self._status())

    def unfinished(self) -> Iterator[tuple[int, Chunk]]:
        """The chunk that ends the text where it is."""
        if self._finish_reason is None:
            yield 0, Chunk(0, "", 0, finish_reason="length")

    def closing(self) -> Payload:
        """The whole response once more."""
        status = self._status()
        return self._event(f"response.{status}", response=self._response(status))

    def failure(self, error: ApiError) -> Payload:
        """OpenAI's own event for it; what the service sends is not known (GUESS)."""
        code = str(error.error_code)
        return self._event("error", code=code, message=error.message, param=None)

    def _say(self, text: str) -> Iterator[Payload]:
        if not self._items or self._items[-1].is_call:
            yield from self._open(OutputItem(f"msg_{self._hex}{len(self._items) or ''}"))
        item = self._items[-1]
        item.text += text
        yield self._part_event("response.output_text.delta", delta=text, logprobs=[])

    def _call(self, delta: ToolCallDelta) -> Iterator[Payload]:
        if delta.index not in self._calls:
            number = len(self._items)
            item = OutputItem(f"fc_{self._hex}{number}", "", delta.id, delta.name)
            self._calls[delta.index] = item
            yield from self._open(item)
        if delta.arguments:
            self._calls[delta.index].text += delta.arguments
            yield self._item_event("response.function_call_arguments.delta", delta=delta.arguments)

    def _open(self, item: OutputItem) -> Iterator[Payload]:
        """The item before it is over: one at a time."""
        if self._items:
            yield from self._close("completed")
        self._items.append(item)
        place = len(self._items) - 1
        new = item.shown(is_new=True)
        yield self._event("response.output_item.added", output_index=place, item=new)
        if not item.is_call:
            yield self._part_event("response.content_part.added", part=item.part())

    def _close(self, status: str) -> Iterator[Payload]:
        item, place = self._items[-1], len(self._items) - 1
        item.status = status
        if item.is_call:
            yield self._item_event(
                "response.function_call_arguments.done", name=item.name, arguments=item.text
            )
        else:
            yield self._part_event("response.output_text.done", text=item.text, logprobs=[])
            yield self._part_event("response.content_part.done", part=item.part())
        yield self._event("response.output_item.done", output_index=place, item=item.shown())

    def _status(self) -> str:
        return "incomplete" if self._finish_reason == "length" else "completed"

    def _part_event(self, kind: str, **fields: object) -> Payload:
        return self._item_event(kind, content_index=0, **fields)

    def _item_event(self, kind: str, **fields: object) -> Payload:
        place = len(self._items) - 1
        return self._event(kind, item_id=self._items[-1].id, output_index=place, **fields)

    def _event(self, kind: str, **fields: object) -> Payload:
        self._sequence += 1
        return {"type": kind, "sequence_number": self._sequence - 1, **fields}

    def _response(self, status: str) -> Payload:
        head = self._shown.head
        is_cut = status == "incomplete"
        usage = {
            "input_tokens": self._prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": self._output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self._prompt_tokens + self._output_tokens,
        }
        return {
            "id": f"resp_{self._hex}",
            "object": "response",
            "created_at": head.created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "model": head.model,
            "output": [item.shown() for item in self._items],
            "previous_response_id": None,
            "store": False,
            **dict(self._shown.echoes),
            "usage": None if status == "in_progress" else usage,
        }
