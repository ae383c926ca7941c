"""A line of waiters: first come, first served, and anybody may leave it at any place."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class _Place:
    tokens: int
    called: asyncio.Future[None]


class Line:
    """Belongs to one event loop. The head has the turn until it leaves the `async with`."""

    def __init__(self) -> None:
        self._places: deque[_Place] = deque()
        self.tokens = 0
        """Sum of what all in line, the head included, have come for."""

    def __len__(self) -> int:
        return len(self._places)

    @asynccontextmanager
    async def turn(self, tokens: int) -> AsyncIterator[None]:
        """Stand in line for `tokens` and hold the turn. Cancelled: the place is freed."""
        place = _Place(tokens, asyncio.get_running_loop().create_future())
        self._places.append(place)
        self.tokens += tokens
        try:
            if self._places[0] is not place:
                await place.called
            yield
        finally:
            self._leave(place)

    def _leave(self, place: _Place) -> None:
        was_head = self._places[0] is place
        self._places.remove(place)
        self.tokens -= place.tokens
        if was_head and self._places and not self._places[0].called.done():
            self._places[0].called.set_result(None)
