"""Sending an answer: as server-sent events while it grows, or whole; and watching for who left."""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pydantic_core import to_json
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from servemu.clock import Clock
from servemu.conversation import Growing
from servemu.errors import ApiError, RequestTimedOut
from servemu_engine.base import Chunk

DONE = b"data: [DONE]\n\n"

T = TypeVar("T")


def event(payload: Mapping[str, object]) -> bytes:
    """`data: {json}` and an empty line, under the name of its type where it has one (Responses,
    Messages). Never a comment: mlflow refuses them (facts §1.3).
    """
    kind = payload.get("type")
    name = b"" if kind is None else f"event: {kind}\n".encode()
    return name + b"data: " + to_json(payload) + b"\n\n"


@dataclass(frozen=True, slots=True)
class Wire:
    """The ASGI side of one request, and the headers of its answer."""

    scope: Scope
    receive: Receive
    send: Send
    headers: Mapping[str, str]


class Delivery(Protocol):
    """Brings the chunks of an answer to the client."""

    @property
    def started(self) -> bool:
        """The status line has left: from here on a failure can only be told in the body."""

    def parts(self, chunk: Chunk) -> Iterable[Chunk]:
        """The chunk as it is to be paid and taken: in two where a fault is within it."""

    async def take(self, source: int, chunk: Chunk) -> None:
        """The next chunk, of prompt number `source`."""

    async def end(self) -> None:
        """All chunks were taken."""

    async def fail(self, error: ApiError) -> None:
        """The answer broke off. Raises the error while the status is still free."""


class Collected:
    """One JSON body at the end."""

    def __init__(self, wire: Wire, answer: Growing) -> None:
        self._wire = wire
        self._answer = answer
        self.started = False

    def parts(self, chunk: Chunk) -> Iterable[Chunk]:
        return (chunk,)

    async def take(self, source: int, chunk: Chunk) -> None:
        self._answer.add(source, chunk)

    async def end(self) -> None:
        self.started = True
        wire = self._wire
        body = to_json(self._answer.body())
        response = Response(body, headers=wire.headers, media_type="application/json")
        await response(wire.scope, wire.receive, wire.send)

    async def fail(self, error: ApiError) -> None:
        raise error


class Streamed:
    """Server-sent events, each sent as soon as it is there (facts/data_plane §3.2)."""

    def __init__(self, wire: Wire, answer: Growing) -> None:
        self._wire = wire
        self._answer = answer
        self.started = False

    def parts(self, chunk: Chunk) -> Iterable[Chunk]:
        return (chunk,)

    def frame(self, payload: dict[str, object]) -> bytes:
        """An event of the answer."""
        return event(payload)

    async def take(self, source: int, chunk: Chunk) -> None:
        for payload in self._answer.events(source, chunk):
            await self._send(self.frame(payload), more=True)

    async def end(self) -> None:
        last = self._answer.closing()
        await self._send(DONE if last is None else self.frame(last), more=False)

    async def fail(self, error: ApiError) -> None:
        """An event that says so, then the end without [DONE] or its like."""
        if not self.started:
            raise error
        await self._send(event(self._answer.failure(error)), more=False)

    async def _send(self, data: bytes, *, more: bool) -> None:
        if not self.started:
            self.started = True
            head = Response(headers=self._wire.headers, media_type="text/event-stream")
            del head.headers["content-length"]
            await self._wire.send(
                {"type": "http.response.start", "status": 200, "headers": head.raw_headers}
            )
        await self._wire.send({"type": "http.response.body", "body": data, "more_body": more})


async def attended(
    work: Coroutine[Any, Any, T], receive: Receive, clock: Clock, deadline: float
) -> T:
    """Run `work` while the client is there and `deadline` (monotonic seconds) has not passed.

    Starlette does not stop an endpoint whose client left. The body must have been read. When
    this returns or raises, `work` has ended. Raises `ClientDisconnect`, `RequestTimedOut`.
    """
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    late = asyncio.ensure_future(clock.sleep_until(deadline))
    everything = (working, gone, late)
    try:
        await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
    finally:
        left = gone.done()
        for task in everything:
            task.cancel()
        await asyncio.wait(everything)
    if not working.cancelled():
        return working.result()
    raise ClientDisconnect if left else RequestTimedOut


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
