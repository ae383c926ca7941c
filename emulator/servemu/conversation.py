"""What the APIs that chat have in common: how one is asked, and how its answer grows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from servemu.errors import ApiError
from servemu.schemas.reasoning import Dialect
from servemu_engine.base import Chunk, GenerateRequest
from servemu_engine.errors import RequestRefused

Payload = dict[str, object]


class Growing(Protocol):
    """An answer that takes the chunks of the engine; `source` is the number of the prompt."""

    def add(self, source: int, chunk: Chunk) -> None:
        """Keep a chunk for `body`."""

    def body(self) -> Payload:
        """The whole answer."""

    def events(self, source: int, chunk: Chunk) -> Iterator[Payload]:
        """A chunk as stream events."""

    def unfinished(self) -> Iterator[tuple[int, Chunk]]:
        """For each text that has no end yet, the chunk that ends it where it is."""

    def closing(self) -> Payload | None:
        """The last event of a stream; None: it ends with `[DONE]`."""

    def failure(self, error: ApiError) -> Payload:
        """The event that tells of a failure after the first byte."""


@dataclass(frozen=True, slots=True)
class Head:
    """What an answer begins with."""

    id: str
    """A UUID."""
    model: str
    created: int
    """Seconds since the epoch."""
    prompt_tokens: int


class Asking(Protocol):
    """What of a request shows in its answer."""

    @property
    def prompt_tokens(self) -> int: ...

    def answer(self) -> Growing:
        """An empty one."""


class Conversation(Protocol):
    """A request for one answer of a chat, whichever API it came by."""

    @property
    def stream(self) -> bool: ...

    def generate_request(self, context_length: int, dialect: Dialect) -> GenerateRequest:
        """What the engine is asked. Raises `BadRequest`."""

    def asked(self, head: Head, dialect: Dialect) -> Asking:
        """What of it shows in the answer."""

    def refusal(self, error: RequestRefused, dialect: Dialect) -> ApiError:
        """The prompt that the engine will not take, in the words of this API."""
