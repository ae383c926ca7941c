"""The only place that reads time or sleeps."""

import asyncio
import time
from contextlib import suppress
from typing import Protocol


class Clock(Protocol):
    """Two times: `now` drives lifecycles, `monotonic` drives the data plane. All in seconds."""

    def now(self) -> float:
        """Seconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds that never jump."""

    async def sleep_until(self, deadline: float) -> None:
        """Return once `monotonic` has reached the deadline."""

    async def wait(self, event: asyncio.Event, until: float | None) -> None:
        """Return when the event is set or `now` has reached `until`; None: only on the event."""


class SystemClock:
    """The computer's clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep_until(self, deadline: float) -> None:
        while (left := deadline - time.monotonic()) > 0:
            await asyncio.sleep(left)

    async def wait(self, event: asyncio.Event, until: float | None) -> None:
        timeout = None if until is None else max(0.0, until - time.time())
        with suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), timeout)


class PausedClock(SystemClock):
    """`now` stands still, so lifecycles move only when a workspace's clock is advanced."""

    def __init__(self, now: float = 1_750_000_000.0) -> None:
        self._now = now

    def now(self) -> float:
        return self._now

    async def wait(self, event: asyncio.Event, until: float | None) -> None:
        if until is None or until > self._now:
            await event.wait()
