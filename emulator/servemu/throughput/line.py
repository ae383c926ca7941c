"""A line of waiters: first come, first served, and anybody may leave it at any place."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Place:
    """Somebody's place in a line, and how many tokens they still wait for."""

    tokens: int
    called: asyncio.Future[None]


class Line:
    """Belongs to one event loop. The head has the turn until it leaves the `async with`."""

    def __init__(self) -> None:
        self._places: deque[Place] = deque()
        self.tokens = 0
        """What all in line, the head included, still wait for."""

    def __len__(self) -> int:
        return len(self._places)

    @property
    def head_tokens(self) -> int:
        """What the head still waits for."""
        return self._places[0].tokens if self._places else 0

    @asynccontextmanager
    async def turn(self, tokens: int) -> AsyncIterator[Place]:
        """Stand in line for `tokens` and hold the turn. Cancelled: the place is freed."""
        place = Place(tokens, asyncio.get_running_loop().create_future())
        self._places.append(place)
        self.tokens += tokens
        try:
            if self._places[0] is not place:
                await place.called
            yield place
        finally:
            self._leave(place)

    def served(self, place: Place, tokens: int) -> None:
        """The place has got some of its tokens."""
        place.tokens -= tokens
        self.tokens -= tokens

    def _leave(self, place: Place) -> None:
        was_head = self._places[0] is place
        self._places.remove(place)
        self.tokens -= place.tokens
        if was_head and self._places and not self._places[0].called.done():
            self._places[0].called.set_result(None)
