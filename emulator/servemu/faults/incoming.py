"""The body of a request, read ahead of the app and given to it again."""

import json
from collections import deque
from typing import Any

from starlette.types import Message, Receive

LIMIT = 64 * 1024 * 1024
"""Bytes that are read ahead; of a longer body nothing is known."""


class Incoming:
    """Stands for the server's `receive`."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._read: deque[Message] = deque()
        self._body: bytes | None = None

    async def receive(self) -> Message:
        return self._read.popleft() if self._read else await self._receive()

    async def body(self) -> bytes:
        """All of it; what is too long, or was cut off, is empty."""
        if self._body is None:
            self._body = await self._read_ahead()
        return self._body

    async def gone(self) -> None:
        """Returns when the client is; once the body was read, by this or by the app."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def fields(self) -> dict[str, Any]:
        """The body as a JSON object; anything else is an empty one."""
        try:
            given = json.loads(await self.body() or b"{}")
        except (ValueError, RecursionError):
            return {}
        return given if isinstance(given, dict) else {}

    async def _read_ahead(self) -> bytes:
        parts = []
        size = 0
        while size <= LIMIT:
            message = await self._receive()
            self._read.append(message)
            if message["type"] != "http.request":
                return b""
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if not message.get("more_body", False):
                return b"".join(parts)
        return b""
