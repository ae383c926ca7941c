"""A load generator: requests in a closed loop over keep-alive connections, raw HTTP/1.1.

Where the server ends a connection after its answer, the next request includes a new one.
`measure` runs it as a process of its own, so that its time is not the server's.
"""

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import cast

import uvloop
from tests.bench.processes import ROOT, bench_module

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is asked. `{n}` in path and body becomes the number of the request."""

    port: int
    method: str
    path: str
    body: str = ""
    token: str = "bench"
    headers: dict[str, str] = field(default_factory=dict)
    """Lower-case; instead of the token and the JSON content type."""
    connections: int = 8
    seconds: float = 1.0
    warm_up: float = 0.2
    """Seconds before it that are not counted."""
    requests: int | None = None
    """Ask so many, however long it takes, and count all."""
    first: int = 0
    """Number of the first request."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Latencies in ms, over all connections."""

    requests: int
    per_second: float
    p50: float
    p99: float
    next: int
    """Number of the next request that would have been asked."""


def measure(load: Load) -> Measured:
    """Run the load. Raises `RuntimeError` when an answer was not 2xx."""
    ran = subprocess.run(
        bench_module("load"),
        input=json.dumps(asdict(load)),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    if ran.returncode != 0:
        raise RuntimeError(ran.stderr.strip().rpartition("\n")[2])
    return Measured(**json.loads(ran.stdout))


@dataclass(slots=True)
class Run:
    """A load under way."""

    load: Load
    done: asyncio.Future[None]
    asked: int = 0
    left: int = 0
    """Connections that have ended."""
    counted_from: float = 0.0
    until: float = 0.0
    latencies: list[float] = field(default_factory=list)
    transports: set[asyncio.Transport] = field(default_factory=set)
    opening: set[asyncio.Task[None]] = field(default_factory=set)

    async def connect(self) -> None:
        """One more connection. It asks as soon as it is open, and its first request includes that;
        the time of it counts from here.
        """
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: Connection(self, began), HOST, self.load.port)
        except OSError as error:
            self.fail(str(error))

    def reconnect(self) -> None:
        """Instead of a connection that the server ends."""
        opening = asyncio.ensure_future(self.connect())
        self.opening.add(opening)
        opening.add_done_callback(self.opening.discard)

    def fail(self, why: str) -> None:
        """The load is over."""
        if not self.done.done():
            asked = f"{self.load.method} {self.load.path}"
            self.done.set_exception(RuntimeError(f"{asked}: {' | '.join(why.split(chr(10)))}"))

    def next_request(self) -> bytes | None:
        """The bytes to send; None: it is over."""
        load = self.load
        if load.requests is not None and self.asked == load.requests:
            return None
        if load.requests is None and time.perf_counter() >= self.until:
            return None
        number = str(load.first + self.asked)
        self.asked += 1
        body = load.body.replace("{n}", number).encode()
        headers = load.headers or {
            "authorization": f"Bearer {load.token}",
            "content-type": "application/json",
        }
        head = (
            f"{load.method} {load.path.replace('{n}', number)} HTTP/1.1\r\n"
            f"host: 127.0.0.1:{load.port}\r\n"
            + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            + f"content-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def took(self, began: float, ended: float) -> None:
        if began >= self.counted_from:
            self.latencies.append(ended - began)

    def leave(self) -> None:
        self.left += 1
        if self.left == self.load.connections and not self.done.done():
            self.done.set_result(None)


class Connection(asyncio.Protocol):
    """Sends the next request when the answer before has come whole."""

    def __init__(self, run: Run, opened_at: float) -> None:
        self._run = run
        self._opened_at: float | None = opened_at
        self._arrived = bytearray()
        self._began = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none by inheritance.
        self._transport = cast(asyncio.Transport, transport)
        self._run.transports.add(self._transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        arrived = self._arrived
        arrived += data
        end_of_head = arrived.find(b"\r\n\r\n")
        if end_of_head < 0:
            return
        head = bytes(arrived[:end_of_head]).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(arrived) < end_of_head + 4 + length:
            return
        if not head.startswith(b"http/1.1 2"):
            self._run.fail(bytes(arrived).decode(errors="replace"))
            return
        self._run.took(self._began, time.perf_counter())
        arrived.clear()
        if b"\r\nconnection: close" in head:
            self._began = 0.0
            self._run.transports.discard(self._transport)
            self._transport.close()
            self._run.reconnect()
        else:
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._run.done.done() and self._began:
            self._run.fail("the server closed the connection")

    def _ask(self) -> None:
        assert self._transport is not None
        request = self._run.next_request()
        if request is None:
            self._began = 0.0
            self._run.leave()
            return
        self._began = self._opened_at or time.perf_counter()
        self._opened_at = None
        self._transport.write(request)


async def drive(load: Load) -> Measured:
    """All connections until the load is over."""
    loop = asyncio.get_running_loop()
    run = Run(load, loop.create_future())
    began = time.perf_counter()
    run.counted_from = began + (load.warm_up if load.requests is None else 0.0)
    run.until = run.counted_from + load.seconds
    for _ in range(load.connections):
        await run.connect()
    try:
        await run.done
    finally:
        for transport in run.transports:
            transport.close()
    elapsed = time.perf_counter() - run.counted_from
    return summary(run, elapsed)


def summary(run: Run, elapsed: float) -> Measured:
    """Percentiles of what was counted."""
    ordered = sorted(run.latencies)
    if not ordered:
        raise RuntimeError(f"no answer to {run.load.path} within {run.load.seconds} s")
    return Measured(
        requests=len(ordered),
        per_second=len(ordered) / elapsed,
        p50=ordered[len(ordered) // 2] * 1000,
        p99=ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000,
        next=run.load.first + run.asked,
    )


def main() -> None:
    load = Load(**json.load(sys.stdin))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        json.dump(asdict(runner.run(drive(load))), sys.stdout)


if __name__ == "__main__":
    main()
