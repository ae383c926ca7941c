"""A served entity under a log of requests, on simulated time: the same queue, bounds and autoscaler
as live, without an event loop."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from servemu.throughput import autoscaler
from servemu.throughput.admission import refusal
from servemu.throughput.autoscaler import NO_LOAD, WINDOW_SECONDS, Scale, Standing
from servemu.throughput.fair_queue import FairQueue, Stream
from servemu.throughput.meter import Meter
from servemu.throughput.terms import Terms

PIECE_SECONDS = 0.1
"""Prompts and answers are paid in pieces of so much of the rate, coarser than live: an event costs
as much, whatever its tokens."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request: when it comes, and its tokens, unweighted."""

    at: float
    """Seconds."""
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Size:
    """What is provisioned."""

    scale: Scale
    terms: Terms
    idle_seconds: float | None = None
    """Without a request, until it is scaled to zero; None: never."""
    cold_start_seconds: float = 0.0
    request_timeout: float = math.inf
    """Seconds; for those that a cold start holds up."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment."""

    at: float
    replicas: int
    offered: float
    """Weighted tokens of all requests so far."""
    paid: float
    """Weighted tokens so far."""
    waiting: float
    """Weighted tokens of the prompts that wait."""


@dataclass(slots=True)
class Outcome:
    """What came of the requests."""

    waits: list[float] = field(default_factory=list)
    """Seconds before the turn of each that was admitted, in that order."""
    refused: int = 0
    """429s."""
    timed_out: int = 0
    """Held through a cold start for too long."""
    paid: float = 0.0
    """Weighted tokens."""
    ended_at: float = 0.0
    """When the last answer was over."""
    replicas: list[tuple[float, int]] = field(default_factory=list)
    """Since when so many serve."""
    samples: list[Sample] = field(default_factory=list)


@dataclass(slots=True)
class Running:
    """A request on its way."""

    arrived: float
    answer: float
    """Weighted tokens of it that nobody has asked for yet."""
    is_admitted: bool = False


class Simulation:
    """One run from the first request until the last answer, or until `until`."""

    def __init__(self, size: Size, start: float = 0.0, sample_seconds: float = math.inf) -> None:
        """`start` in seconds, `sample_seconds` between two samples."""
        self._size = size
        self._now = start
        self._standing = Standing(size.scale.minimum)
        self._queue = FairQueue(size.terms.rates(self._rate), PIECE_SECONDS)
        self._meter = Meter(start, self._rate)
        self._running: dict[Stream, Running] = {}
        self._held: list[Arrival] = []
        self._look_at: float | None = None
        self._idle_at = math.inf if size.idle_seconds is None else start + size.idle_seconds
        self._awake_at: float | None = None
        self._is_asleep = False
        self._loaded_at = start
        self._offered = 0.0
        self._sample_seconds = sample_seconds
        self._sample_at = start if sample_seconds < math.inf else math.inf
        self.outcome = Outcome(replicas=[(start, size.scale.minimum)])

    def run(self, arrivals: Sequence[Arrival], until: float | None = None) -> Outcome:
        """`arrivals` by time; None: until nothing is to come of them."""
        coming = iter(arrivals)
        arrival = next(coming, None)
        end = math.inf if until is None else until
        while True:
            arrives = math.inf if arrival is None else arrival.at
            at = self._next(arrives, is_last=arrival is None and until is None)
            if at is None or at > end:
                break
            self._now = max(self._now, at)
            if arrival is not None and arrives <= self._now:
                self._arrive(arrival)
                arrival = next(coming, None)
            else:
                self._happen()
        self.outcome.paid = self._queue.paid
        return self.outcome

    @property
    def _rate(self) -> float:
        return self._standing.replicas * self._size.scale.replica_rate

    @property
    def _in_flight(self) -> int:
        return self._queue.waiting + self._queue.running

    def _next(self, arrives: float, *, is_last: bool) -> float | None:
        """When the next thing happens; None: all is over."""
        due = self._queue.due()
        if is_last and due is None and self._awake_at is None:
            return None
        at = min(arrives, math.inf if due is None else due, self._idle_at, self._sample_at)
        for other in (self._look_at, self._awake_at):
            if other is not None and other < at:
                at = other
        return at if at < math.inf else None

    def _happen(self) -> None:
        """Whatever is due by now, but for arrivals."""
        now = self._now
        due = self._queue.due()
        if due is not None and due <= now:
            self._pay()
        elif self._awake_at is not None and self._awake_at <= now:
            self._wake()
        elif self._look_at is not None and self._look_at <= now:
            self._look()
        elif self._idle_at <= now:
            self._fall_asleep()
        else:
            self._sample()

    def _arrive(self, arrival: Arrival) -> None:
        size, now = self._size, self._now
        if size.idle_seconds is not None:
            self._idle_at = now + size.idle_seconds
        weights = size.terms.weights
        prompt = arrival.input_tokens * weights.input
        answer = arrival.output_tokens * weights.output
        self._offered += prompt + answer
        if self._is_asleep:
            self._held.append(arrival)
            if self._awake_at is None:
                self._awake_at = now + size.cold_start_seconds
            return
        self._enter(prompt, Running(arrival.at, answer))

    def _enter(self, prompt: float, running: Running) -> None:
        now, bounds = self._now, self._size.terms.bounds
        self._meter.note(now)
        self._loaded_at = now
        self._demanded()
        if refusal(self._queue, bounds) is not None or self._in_flight >= bounds.in_flight:
            self.outcome.refused += 1
            self._meter.refused += 1
            return
        stream = self._queue.enter(prompt, now)
        self._running[stream] = running
        if stream.admitted_at is not None:
            self._go_on(stream, running)

    def _pay(self) -> None:
        now, before = self._now, self._queue.paid
        self._meter.note(now)
        self._loaded_at = now
        for stream in self._queue.pay(now):
            self._go_on(stream, self._running[stream])
        self._meter.paid += self._queue.paid - before

    def _go_on(self, stream: Stream, running: Running) -> None:
        """It asks for the next piece of its answer, or has it all."""
        if not running.is_admitted:
            running.is_admitted = True
            assert stream.admitted_at is not None
            # What an idle budget has saved up pays at once, dated back.
            self.outcome.waits.append(max(0.0, stream.admitted_at - running.arrived))
        if running.answer <= 0:
            self._queue.leave(stream, self._now)
            del self._running[stream]
            self.outcome.ended_at = self._now
            return
        piece = min(running.answer, max(1.0, self._queue.rate * PIECE_SECONDS))
        running.answer -= piece
        self._queue.ask(stream, piece, self._now)

    def _demanded(self) -> None:
        scale = self._size.scale
        look_at = self._now + scale.decision_seconds
        if scale.minimum < scale.maximum and (self._look_at is None or self._look_at > look_at):
            self._look_at = look_at

    def _look(self) -> None:
        """The autoscaler decides, as `lifecycle.scaling` has it do."""
        now, scale = self._now, self._size.scale
        is_loaded = self._in_flight > 0 or now - self._loaded_at < WINDOW_SECONDS
        load = NO_LOAD
        if is_loaded:
            load = autoscaler.measure(self._meter, self._queue, now, WINDOW_SECONDS)
        before = self._standing.replicas
        self._standing = autoscaler.decide(self._standing, scale, load, now)
        self._look_at = autoscaler.due(self._standing, scale, now, is_loaded=is_loaded)
        if self._standing.replicas != before:
            self._stand()

    def _stand(self) -> None:
        self.outcome.replicas.append((self._now, self._standing.replicas))
        self._queue.set_rates(self._size.terms.rates(self._rate))
        self._meter.note(self._now)
        self._meter.rate = self._rate

    def _fall_asleep(self) -> None:
        """Nobody asked for long enough; who still waits or runs keeps it awake."""
        assert self._size.idle_seconds is not None
        if self._in_flight:
            self._idle_at = self._now + self._size.idle_seconds
            return
        self._idle_at, self._look_at, self._is_asleep = math.inf, None, True
        self._meter.note(self._now)
        self._meter.rate = 0.0
        self.outcome.replicas.append((self._now, 0))

    def _wake(self) -> None:
        size = self._size
        self._awake_at, self._is_asleep = None, False
        self._standing = Standing(size.scale.minimum)
        self._stand()
        held, self._held = self._held, []
        for arrival in held:
            if self._now - arrival.at > size.request_timeout:
                self.outcome.timed_out += 1
                continue
            weights = size.terms.weights
            answer = Running(arrival.at, arrival.output_tokens * weights.output)
            self._enter(arrival.input_tokens * weights.input, answer)

    def _sample(self) -> None:
        replicas = self.outcome.replicas[-1][1]
        self.outcome.samples.append(
            Sample(self._now, replicas, self._offered, self._queue.paid, self._queue.waiting_tokens)
        )
        self._sample_at = self._now + self._sample_seconds


def replica_seconds(replicas: Sequence[tuple[float, int]], until: float) -> float:
    """The replicas of an outcome, times how long each served."""
    ends = [at for at, _ in replicas[1:]] + [until]
    return sum(
        max(0.0, min(end, until) - at) * number
        for (at, number), end in zip(replicas, ends, strict=True)
    )


def merged(*logs: Sequence[Arrival]) -> list[Arrival]:
    """Several logs as one, by time."""
    return list(heapq.merge(*logs, key=lambda arrival: arrival.at))
