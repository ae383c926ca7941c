"""The one bridge from an engine's thread to an event loop."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field

from servemu_engine.base import Chunk
from servemu_engine.errors import EngineError


@dataclass(frozen=True, slots=True)
class Reader:
    """What the reader tells the engine. Both are called on the event loop's thread."""

    took: Callable[[Chunk], None]
    left: Callable[[], None]


@dataclass(slots=True, eq=False)
class LocalGeneration:
    """`n` running answers, read on one event loop. Errors come after all chunks before them."""

    loop: asyncio.AbstractEventLoop
    n: int
    reader: Reader
    _arrived: deque[Chunk | EngineError] = field(init=False, default_factory=deque)
    _wake: asyncio.Future[None] | None = field(init=False, default=None)
    _is_over: bool = field(init=False, default=False)

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        if self.n == 0 or (self._is_over and not self._arrived):
            raise StopAsyncIteration
        while not self._arrived:
            self._wake = self.loop.create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        item = self._arrived.popleft()
        if isinstance(item, EngineError):
            self._is_over = True
            raise item
        if item.finish_reason is not None:
            self.n -= 1
        self.reader.took(item)
        return item

    async def __aenter__(self) -> "LocalGeneration":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self.n > 0 and not self._is_over:
            self._is_over = True
            self._arrived.clear()
            self.reader.left()

    def receive(self, item: Chunk | EngineError) -> None:
        """Called on the event loop, by `deliver`."""
        if self._is_over:
            return
        self._arrived.append(item)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


Delivery = tuple[LocalGeneration, Chunk | EngineError]


def deliver(items: Iterable[Delivery]) -> list[LocalGeneration]:
    """Hand over what one step gave, with one wake-up a loop; returns those whose loop is closed."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Delivery]] = {}
    for generation, item in items:
        by_loop.setdefault(generation.loop, []).append((generation, item))
    unreachable: list[LocalGeneration] = []
    for loop, batch in by_loop.items():
        try:
            loop.call_soon_threadsafe(_receive_all, batch)
        except RuntimeError:
            unreachable.extend(generation for generation, _ in batch)
    return unreachable


def _receive_all(batch: list[Delivery]) -> None:
    for generation, item in batch:
        generation.receive(item)
