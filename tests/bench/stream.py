"""An independent client of streamed answers: counts the tokens that `usage` says have come."""

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from typing import cast

USAGE = re.compile(rb'"total_tokens":(\d+)\}')

END = b"\r\n0\r\n\r\n"
"""The last chunk of a chunked answer."""

PROMPT = "Write a long story about the sea."


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """So many streams of one endpoint, each asking again as soon as its answer is whole."""

    port: int
    endpoint: str
    streams: int
    max_tokens: int
    warm_up: float
    seconds: float


@dataclass(slots=True)
class Counted:
    """What came within the window."""

    tokens: int = 0
    """Input and output, as `usage` has them."""
    events: int = 0
    refused: int = 0
    """429s over the whole run; each was asked again after its Retry-After."""
    seconds: float = 0.0
    opens: float = field(default=0.0)
    closes: float = field(default=0.0)

    def add(self, tokens: int, events: int) -> None:
        if self.opens <= time.perf_counter() < self.closes:
            self.tokens += tokens
            self.events += events


async def count(streams: Streams) -> Counted:
    """Run the streams through the warm-up and the window. Raises `RuntimeError` on a refusal
    that is no 429."""
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    opens = began + streams.warm_up
    counted = Counted(opens=opens, closes=opens + streams.seconds, seconds=streams.seconds)
    failed: asyncio.Future[None] = loop.create_future()
    opened = [
        await loop.create_connection(
            lambda: Stream(streams, counted, failed), "127.0.0.1", streams.port
        )
        for _ in range(streams.streams)
    ]
    try:
        async with asyncio.timeout(counted.closes - time.perf_counter()):
            await failed
    except TimeoutError:
        return counted
    finally:
        for transport, _ in opened:
            transport.abort()
    raise AssertionError("the future is only ever failed")


class Stream(asyncio.Protocol):
    """One connection."""

    def __init__(self, streams: Streams, counted: Counted, failed: asyncio.Future[None]) -> None:
        self._request = request_bytes(streams)
        self._counted = counted
        self._failed = failed
        self._transport: asyncio.Transport | None = None
        self._unread = b""
        self._in_head = True
        self._seen = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none by inheritance.
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        data = self._unread + data
        if self._in_head:
            head, found, rest = data.partition(b"\r\n\r\n")
            if not found:
                self._unread = data
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self._unread = data
                self._refused(head, rest)
                return
            self._in_head, data = False, rest
        self._count(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._failed.done():
            self._failed.set_exception(RuntimeError("the server closed a stream"))

    def _count(self, data: bytes) -> None:
        counted = list(USAGE.finditer(data))
        if counted:
            total = int(counted[-1][1])
            self._counted.add(total - self._seen, len(counted))
            self._seen = total
        # The next usage object may have been cut by the end of this read.
        self._unread = data[counted[-1].end() :] if counted else data
        if data.endswith(END):
            self._ask()

    def _ask(self) -> None:
        assert self._transport is not None
        self._unread, self._in_head, self._seen = b"", True, 0
        self._transport.write(self._request)

    def _refused(self, head: bytes, body: bytes) -> None:
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if length is not None and len(body) < int(length[1]):
            return
        wait = re.search(rb"(?i)\r\nretry-after: (\d+)", head)
        if head.startswith(b"HTTP/1.1 429") and wait is not None:
            self._counted.refused += 1
            self._unread = b""
            asyncio.get_running_loop().call_later(int(wait[1]), self._ask)
        elif not self._failed.done():
            self._failed.set_exception(RuntimeError((head + b" " + body).decode()))


def request_bytes(streams: Streams) -> bytes:
    """The request of every stream."""
    body = json.dumps(
        {
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": streams.max_tokens,
            "temperature": 0,
            "stream": True,
        }
    ).encode()
    head = (
        f"POST /serving-endpoints/{streams.endpoint}/invocations HTTP/1.1\r\n"
        f"host: 127.0.0.1:{streams.port}\r\nauthorization: Bearer bench\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
