"""The token budget of a served entity: tokens/s, shared by everything that runs on it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from servemu.clock import Clock
from servemu.throughput.fair_queue import FairQueue, Stream
from servemu.throughput.meter import Meter
from servemu.throughput.terms import Terms

DEFAULT = Terms()


class TokenBudget:
    """`FairQueue` on a clock, with a `Meter`. Belongs to one event loop.

    Nothing runs while nobody waits. Weighted tokens are what the family's weights make of them.
    """

    def __init__(self, rate: float | None, clock: Clock, terms: Terms = DEFAULT) -> None:
        """`rate` in tokens/s, None: unlimited (pay-per-token). Raises `ValueError`."""
        self._clock = clock
        self._called: dict[Stream, asyncio.Future[None]] = {}
        self._paying: asyncio.Task[None] | None = None
        self.terms = terms
        self.queue = None if rate is None else FairQueue(terms.rates(rate))
        self.meter = Meter(clock.monotonic(), rate or 0.0)
        self.in_flight = 0
        """Requests that wait to be admitted, or run."""

    @property
    def rate(self) -> float | None:
        """Tokens/s; None: unlimited."""
        return None if self.queue is None else self.queue.rate

    @property
    def is_limited(self) -> bool:
        return self.queue is not None

    @property
    def paid(self) -> float:
        """Weighted tokens since the start."""
        return self.meter.paid

    def set_rate(self, rate: float) -> None:
        """Replicas came or went. Raises `ValueError`."""
        assert self.queue is not None
        self.queue.set_rates(self.terms.rates(rate))
        self.meter.note(self._clock.monotonic())
        self.meter.rate = rate

    def refused(self) -> None:
        """A request was turned away with a 429."""
        self.meter.note(self._clock.monotonic())
        self.meter.refused += 1

    @asynccontextmanager
    async def enter(self, prompt_tokens: int) -> AsyncIterator["Admitted"]:
        """Wait until the prompt is paid; in flight until the `async with` is left, which by
        whatever way frees the place and gives back what is unpaid."""
        now = self._clock.monotonic()
        self.meter.note(now)
        self.meter.demanding += 1
        self.in_flight += 1
        prompt = max(0, prompt_tokens) * self.terms.weights.input
        admitted = Admitted(self, Stream(now, 0.0), prompt)
        try:
            if self.queue is None:
                self.meter.paid += prompt
            else:
                admitted.stream = self.queue.enter(prompt, now)
                await self._wait(admitted.stream)
            self.meter.waited(self._clock.monotonic() - now)
            self.meter.prefilling += prompt
            yield admitted
        finally:
            self._left(admitted)

    @contextmanager
    def pacing(self) -> Iterator[None]:
        """Inside of it a request waits for the played model's pace: it asks for nothing."""
        self.meter.note(self._clock.monotonic())
        self.meter.demanding -= 1
        try:
            yield
        finally:
            self.meter.note(self._clock.monotonic())
            self.meter.demanding += 1

    async def pay(self, stream: Stream, tokens: float) -> None:
        """Wait until so many weighted tokens of the answer are paid."""
        now = self._clock.monotonic()
        if self.queue is None:
            self.meter.note(now)
            self.meter.paid += tokens
            return
        self.queue.ask(stream, tokens, now)
        await self._wait(stream)

    def sending(self) -> None:
        """A request waits for its client to read: it asks for nothing until `sent`."""
        self.meter.note(self._clock.monotonic())
        self.meter.demanding -= 1

    def sent(self) -> None:
        """The client has read, or will not any more."""
        self.meter.note(self._clock.monotonic())
        self.meter.demanding += 1

    def wrote(self, tokens: float) -> None:
        """So many weighted tokens have been written to a client's socket."""
        self.meter.note(self._clock.monotonic())
        self.meter.delivered += tokens

    async def _wait(self, stream: Stream) -> None:
        """Until the queue has paid what the stream waits for."""
        assert self.queue is not None
        if self._paying is None and self.queue.waiting + self.queue.asking == 1:
            self._pay()  # nobody else who could be next: what is due needs no task of its own
        if _is_served(stream):
            return
        called = self._called[stream] = asyncio.get_running_loop().create_future()
        if self._paying is None:
            self._paying = asyncio.create_task(self._pay_until_idle())
        try:
            await called
        finally:
            del self._called[stream]

    async def _pay_until_idle(self) -> None:
        assert self.queue is not None
        try:
            while (due := self.queue.due()) is not None:
                if due > self._clock.monotonic():
                    await self._clock.sleep_until(due)
                self._pay()
                # Those that were just served may ask again before the next one is chosen.
                await asyncio.sleep(0)
        finally:
            if self._paying is asyncio.current_task():
                self._paying = None

    def _pay_again(self) -> None:
        """The payment that was slept for is not made."""
        assert self.queue is not None
        if self._paying is not None:
            self._paying.cancel()
            self._paying = None
        if not self.queue.is_idle:
            self._paying = asyncio.create_task(self._pay_until_idle())

    def _pay(self) -> None:
        assert self.queue is not None
        now, before = self._clock.monotonic(), self.queue.paid
        self.meter.note(now)
        for stream in self.queue.pay(now):
            called = self._called.get(stream)
            if called is not None and not called.done():
                called.set_result(None)
        self.meter.paid += self.queue.paid - before

    def _left(self, admitted: "Admitted") -> None:
        now = self._clock.monotonic()
        admitted.sent()
        self.meter.note(now)
        self.meter.demanding -= 1
        self.in_flight -= 1
        admitted.answered()
        if self.queue is not None and self.queue.leave(admitted.stream, now):
            self._pay_again()


class Admitted:
    """A request whose prompt is paid, and what it does with the budget from then on."""

    def __init__(self, budget: TokenBudget, stream: Stream, prompt: float) -> None:
        self.budget = budget
        self.stream = stream
        self._prompt = prompt
        self._unwritten = prompt
        self._is_prefilling = True
        self._is_sending = False

    async def pay(self, tokens: int) -> None:
        """Wait for the turn of this stream, until so many tokens of the answer are paid."""
        self.answered()
        if tokens > 0:
            weighted = tokens * self.budget.terms.weights.output
            await self.budget.pay(self.stream, weighted)
            self._unwritten += weighted

    def sending(self) -> None:
        """Something is about to be written to the client's socket, which may take its time."""
        self._is_sending = True
        self.budget.sending()

    def sent(self) -> None:
        """Whatever came of it."""
        if self._is_sending:
            self._is_sending = False
            self.budget.sent()

    def wrote(self) -> None:
        """All that was paid has been written to the client's socket."""
        self.sent()
        self.budget.wrote(self._unwritten)
        self._unwritten = 0.0

    def answered(self) -> None:
        """Something of the answer is there, or never will be."""
        if self._is_prefilling and self.stream.admitted_at is not None:
            self.budget.meter.prefilling -= self._prompt
        self._is_prefilling = False


def _is_served(stream: Stream) -> bool:
    return stream.admitted_at is not None and not stream.asks
