"""What the data plane did for whom: counts by workspace, endpoint and served entity.

The one seam is `Exchange`: a request of the data plane notes in it what happens to it, and the
middleware `Metering` counts it when it is over. The counts live as long as the process, as those of
a real replica do; Prometheus takes a counter that starts again for what it is.
"""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from servemu.auth import ROUTE_OPTIMIZED
from servemu.clock import Clock
from servemu.faults.entities import befall_entity
from servemu.serving import Served, caller_of, world_of
from servemu.throughput import admission
from servemu.throughput.budget import Admitted

DATA_PLANE = ("/serving-endpoints/", f"{ROUTE_OPTIMIZED}/", "/ai-gateway/")
MINUTE = 60
BUCKETS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000)
"""ms. Both ends are DOC, the steps between a GUESS (facts/control_plane §7)."""


@dataclass(slots=True)
class Histogram:
    """How often a duration fell into which of `BUCKETS`; the last place is for longer ones."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    sum: float = 0.0
    """ms."""

    def observe(self, milliseconds: float) -> None:
        self.counts[bisect_left(BUCKETS, milliseconds)] += 1
        self.sum += milliseconds


@dataclass(slots=True)
class Second:
    """What ended within one second of the workspace's clock."""

    at: int
    requests: int = 0
    client_errors: int = 0
    server_errors: int = 0
    tokens: int = 0


@dataclass(slots=True)
class Counts:
    """The requests that one served entity answered, refused or failed."""

    statuses: Counter[int] = field(default_factory=Counter)
    tokens_in: int = 0
    tokens_out: int = 0
    latency: Histogram = field(default_factory=Histogram)
    queue: Histogram = field(default_factory=Histogram)
    """Of the admitted ones, until they were."""
    prediction: Histogram = field(default_factory=Histogram)
    """Of the admitted ones, from then on."""
    last_at: float = 0.0
    """Seconds since the epoch, on the workspace's clock."""
    seconds: deque[Second] = field(default_factory=deque)
    """At most the last minute's."""

    def last_minute(self, now: float) -> Second:
        """The sum over the minute before `now` (workspace's clock)."""
        recent = [second for second in self.seconds if second.at > now - MINUTE]
        return Second(
            at=int(now),
            requests=sum(second.requests for second in recent),
            client_errors=sum(second.client_errors for second in recent),
            server_errors=sum(second.server_errors for second in recent),
            tokens=sum(second.tokens for second in recent),
        )

    def second(self, now: float) -> Second:
        """The one that `now` is in; those that are a minute old are dropped."""
        while self.seconds and self.seconds[0].at <= now - MINUTE:
            self.seconds.popleft()
        if not self.seconds or self.seconds[-1].at < int(now):
            self.seconds.append(Second(int(now)))
        return self.seconds[-1]


@dataclass(slots=True)
class Exchange:
    """One request of the data plane while it runs; times are monotonic seconds."""

    clock: Clock
    arrived: float
    meter: "Meter | None" = None
    """None: nobody counts it."""
    workspace: str = ""
    counts: Counts | None = None
    """Of who answers: until that is known there is nobody to count it for. Kept from then on, so
    that what an endpoint of the same name does later is not mixed with it."""
    status: int | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    queued_at: float | None = None
    admitted_at: float | None = None

    def served_by(self, served: Served) -> None:
        """Who answers is known."""
        if self.meter is not None:
            self.workspace = served.workspace
            self.counts = self.meter.counts_of(served)

    def end(self) -> None:
        """It is over; only the first time counts."""
        if self.meter is not None:
            self.meter.count(self)
            self.meter = None


class Meter:
    """The counts of every served entity that was ever asked. Belongs to the event loop."""

    def __init__(self, now: Callable[[str], float]) -> None:
        """`now`: workspace → seconds since the epoch on its clock."""
        self._now = now
        self._counts: dict[str, dict[str, dict[str, Counts]]] = {}
        """By workspace, endpoint and served entity."""

    def of(self, workspace: str, endpoint: str) -> dict[str, Counts]:
        """By served entity; those that nobody asked are not there."""
        return self._counts.get(workspace, {}).get(endpoint, {})

    def forget(self, workspace: str, endpoint: str) -> None:
        """The endpoint is gone; another of its name starts at zero."""
        self._counts.get(workspace, {}).pop(endpoint, None)

    def forget_all(self, workspace: str) -> None:
        """Every endpoint of the workspace is gone."""
        self._counts.pop(workspace, None)

    def counts_of(self, served: Served) -> Counts:
        """Those of one served entity, at zero if it is new."""
        endpoints = self._counts.setdefault(served.workspace, {})
        entities = endpoints.setdefault(served.endpoint, {})
        return entities.setdefault(served.entity, Counts())

    def count(self, exchange: Exchange) -> None:
        """The exchange is over. Without an entity or an answer there is nothing to count."""
        counts, status = exchange.counts, exchange.status
        if counts is None or status is None:
            return
        now = self._now(exchange.workspace)
        counts.last_at = now
        counts.statuses[status] += 1
        counts.tokens_in += exchange.tokens_in
        counts.tokens_out += exchange.tokens_out
        second = counts.second(now)
        second.requests += 1
        second.client_errors += 400 <= status < 500
        second.server_errors += status >= 500
        second.tokens += exchange.tokens_in + exchange.tokens_out
        _observe(counts, exchange)


def _observe(counts: Counts, exchange: Exchange) -> None:
    ended = exchange.clock.monotonic()
    counts.latency.observe(1000 * (ended - exchange.arrived))
    if exchange.queued_at is not None and exchange.admitted_at is not None:
        counts.queue.observe(1000 * (exchange.admitted_at - exchange.queued_at))
        counts.prediction.observe(1000 * (ended - exchange.admitted_at))


class Metering:
    """Opens an exchange for each request of the data plane, and counts it when it is over."""

    def __init__(self, app: ASGIApp, meter: Meter, clock: Clock) -> None:
        self._app = app
        self._meter = meter
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(DATA_PLANE):
            await self._app(scope, receive, send)
            return
        exchange = Exchange(self._clock, self._clock.monotonic(), self._meter)
        scope["exchange"] = exchange

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
            elif not message.get("more_body", False):
                exchange.end()  # whoever has seen the end of the answer finds it counted
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            exchange.end()


def exchange_of(request: Request) -> Exchange:
    """The request's exchange; one that nobody counts where there is no `Metering`."""
    clock = world_of(request).clock
    exchange: Exchange = request.scope.setdefault("exchange", Exchange(clock, clock.monotonic()))
    return exchange


async def route(request: Request, endpoint: str, entity: str | None = None) -> Served:
    """Who answers the request, which is counted for it from now on.

    Raises what `Router.route` raises.
    """
    request.scope["endpoint_name"] = endpoint
    served = await world_of(request).router.route(caller_of(request), endpoint, entity)
    exchange_of(request).served_by(served)
    await befall_entity(request, served.entity)
    return served


@asynccontextmanager
async def admitted(
    exchange: Exchange, served: Served, prompt_tokens: int
) -> AsyncIterator[Admitted]:
    """`admission.enter`, with the wait and the prompt noted. Raises `RequestLimitExceeded`."""
    exchange.queued_at = exchange.clock.monotonic()
    async with admission.enter(served, prompt_tokens) as running:
        exchange.admitted_at = exchange.clock.monotonic()
        exchange.tokens_in += prompt_tokens
        yield running
