"""Faults of the connection: reset, never an answer, bytes that trickle.

They need the transport, which `servemu.server` puts into the scope; no other server does.
"""

import asyncio
import socket
import struct

from starlette.types import Message, Receive, Scope, Send

from servemu.clock import Clock
from servemu.schemas.effects import ConnectionReset, Hang, SlowBytes

TRANSPORT = "servemu.transport"
"""ASGI extension: the `asyncio.Transport` of the connection."""
PIECES_PER_SECOND = 10


async def act(effect: ConnectionReset | Hang, scope: Scope, receive: Receive) -> None:
    """Instead of an answer. Returns when the connection is gone."""
    if isinstance(effect, ConnectionReset):
        reset(scope)
    await gone(receive)


def reset(scope: Scope) -> None:
    """Ends the connection with a RST; what was not sent yet is lost."""
    transport = _transport(scope)
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def close(scope: Scope) -> None:
    """Ends the connection once all was sent, whatever the answer still lacks."""
    _transport(scope).close()


async def gone(receive: Receive) -> None:
    """Returns when the client is."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Trickle:
    """Sends the body of an answer at so many bytes a second, or resets it on the way."""

    def __init__(
        self, scope: Scope, send: Send, effect: SlowBytes | ConnectionReset, clock: Clock
    ) -> None:
        self._scope = scope
        self._send = send
        self._effect = effect
        self._clock = clock
        self._sent = 0
        self._is_reset = False

    async def send(self, message: Message) -> None:
        if self._is_reset or _transport(self._scope).is_closing():
            return
        if message["type"] != "http.response.body":
            await self._send(message)
        elif isinstance(self._effect, ConnectionReset):
            await self._until_reset(message, self._effect.after_bytes or 0)
        else:
            await self._slowly(message, self._effect.bytes_per_second)

    async def _until_reset(self, message: Message, after: int) -> None:
        body: bytes = message.get("body", b"")
        if self._sent + len(body) < after:
            self._sent += len(body)
            await self._send(message)
            return
        await self._send({**message, "body": body[: after - self._sent], "more_body": True})
        await asyncio.sleep(0)  # so that what was sent has left
        self._is_reset = True
        reset(self._scope)

    async def _slowly(self, message: Message, rate: int) -> None:
        body: bytes = message.get("body", b"")
        size = max(1, rate // PIECES_PER_SECOND)
        for start in range(0, len(body), size):
            piece = body[start : start + size]
            await self._clock.sleep_until(self._clock.monotonic() + len(piece) / rate)
            if _transport(self._scope).is_closing():
                return
            await self._send({**message, "body": piece, "more_body": True})
        if not message.get("more_body", False):
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _transport(scope: Scope) -> asyncio.Transport:
    transport: asyncio.Transport | None = scope.get("extensions", {}).get(TRANSPORT)
    if transport is None:
        raise RuntimeError("faults of the connection need servemu's own server")
    return transport
