"""Who pays next from a token budget: pure steps, no clock, no event loop.

Live, `TokenBudget` drives it; a simulation drives it from `due` to `due`. Two lines share the rate:
prompts that wait to be admitted, who get `PROMPT_SHARE` of it while both lines are full, and the
running streams, who get equal shares of theirs, whatever the size of their chunks (start-time fair
queueing, Goyal et al. 1996). What one line does not use the other gets.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from servemu.throughput.allowance import Allowance, Rate

SLICE_SECONDS = 0.02
"""A prompt is paid in slices of this much of the rate, so that running streams keep moving."""

PROMPT_SHARE = 0.75
"""Of the rate, while prompts wait and streams run. GUESS: real servers prefill first, too."""

LARGEST_CHUNK = 32.0
"""Tokens of an answer that are expected to be paid at once, until a larger payment is seen."""


@dataclass(slots=True, eq=False)
class Stream:
    """What one request has to pay: its prompt, then its answer. Amounts are weighted tokens."""

    arrived: float
    """Monotonic seconds."""
    prompt: float
    """Not yet paid."""
    admitted_at: float | None = None
    """When the last of the prompt was paid."""
    asks: float = 0.0
    """What of its answer it waits for."""
    left: bool = False
    tag: float = field(default=0.0, repr=False)
    """Where it stands among the streams: those that were paid least go first."""


@dataclass(frozen=True, slots=True)
class Payment:
    """Under way; only its payer's leaving ends it early."""

    stream: Stream
    tokens: float
    due: float
    is_prompt: bool
    start: float
    """Where its line stands."""


class FairQueue:
    """Streams enter, are admitted once their prompt is paid, ask for their answer, and leave.

    Prompts: earliest first, counted from when each would be done alone (arrival + tokens / rate).
    So a short prompt overtakes long ones, and nobody is overtaken by who comes after that time.
    """

    def __init__(self, rates: Sequence[Rate], slice_seconds: float = SLICE_SECONDS) -> None:
        self._slice_seconds = slice_seconds
        self._allowance = Allowance(rates)
        self._prompts: list[tuple[float, int, Stream]] = []
        self._asking: list[tuple[float, int, Stream]] = []
        self._paying: Payment | None = None
        self._before: tuple[float, ...] = ()
        """What the allowance was when the payment under way began."""
        self._entered = 0
        self._largest = LARGEST_CHUNK
        """Payment of an answer so far."""
        self._virtual = self._prompts_tag = self._asking_tag = 0.0
        """Among the two lines: the start of the last payment, and where each line's last ended."""
        self._streams_virtual = 0.0
        """Among the streams: the start of the last payment."""
        self.waiting = 0
        """Requests whose prompt is not wholly paid."""
        self.waiting_tokens = 0.0
        """What is unpaid of their prompts."""
        self.running = 0
        """Admitted ones that have not left."""
        self.asking = 0
        """Running ones that wait for a payment."""
        self.paid = 0.0
        """Since the start."""

    @property
    def rate(self) -> float:
        """Provisioned tokens/s."""
        return self._allowance.tokens_per_second

    @property
    def is_idle(self) -> bool:
        """Nobody waits for a payment."""
        return self.waiting == self.asking == 0

    @property
    def lag_seconds(self) -> float:
        """By how much a line may be behind its share: two payments of answers and a slice."""
        return (2 * self._largest + self._slice) / self.rate

    def set_rates(self, rates: Sequence[Rate]) -> None:
        """Replicas came or went. A payment under way ends as it began."""
        self._allowance.set_rates(rates)

    def enter(self, prompt: float, now: float) -> Stream:
        """A request with a prompt of so many tokens; of 0: it is admitted at once."""
        stream = Stream(now, prompt)
        if prompt <= 0:
            stream.admitted_at = now
            self.running += 1
            return stream
        self._begin(now)
        self._entered += 1
        heapq.heappush(self._prompts, (now + prompt / self.rate, self._entered, stream))
        self.waiting += 1
        self.waiting_tokens += prompt
        return stream

    def ask(self, stream: Stream, tokens: float, now: float) -> None:
        """The stream waits to pay for so many tokens of its answer; one payment at a time."""
        assert stream.admitted_at is not None and not stream.asks and not stream.left
        self._begin(now)
        stream.asks = tokens
        self._entered += 1
        start = max(self._streams_virtual, stream.tag)
        heapq.heappush(self._asking, (start, self._entered, stream))
        self.asking += 1
        self._largest = max(self._largest, tokens)

    def leave(self, stream: Stream, now: float) -> bool:
        """It is over, or given up: what is unpaid goes back. True: its payment was under way, and
        another one is due. That time was the leaver's: it is no burst for those behind."""
        if stream.left:
            return False
        stream.left = True
        if stream.admitted_at is None:
            self.waiting -= 1
            self.waiting_tokens -= stream.prompt
            if self.waiting == 0:
                self.waiting_tokens = 0.0  # no rounding error outlives a queue
        else:
            self.running -= 1
            self.asking -= bool(stream.asks)
        if self._paying is not None and self._paying.stream is stream:
            self._paying = None
            self._allowance.take_back(self._before, now)
            return True
        return False

    def due(self) -> float | None:
        """When the next payment is made, and so the time of the next `pay`; None: nobody waits."""
        if self._paying is None:
            payment = self._candidate()
            if payment is None:
                return None
            self._begin_payment(payment)
        assert self._paying is not None
        return self._paying.due

    def pay(self, now: float) -> list[Stream]:
        """Make the payments that are due by now: whom they completed something for, in order."""
        done: list[Stream] = []
        while (payment := self._paying or self._candidate()) is not None and payment.due <= now:
            # Not yet due, it is not chosen: who was just served may ask again before `due`.
            if self._paying is None:
                self._begin_payment(payment)
            self._paying = None
            self.paid += payment.tokens
            if self._settle(payment):
                done.append(payment.stream)
        return done

    def _settle(self, payment: Payment) -> bool:
        """Whether the stream has what it waited for."""
        stream = payment.stream
        if not payment.is_prompt:
            stream.asks = 0.0
            self.asking -= 1
            return True
        stream.prompt -= payment.tokens
        self.waiting_tokens -= payment.tokens
        if stream.prompt > 0:
            return False
        stream.admitted_at = payment.due
        self.waiting -= 1
        self.running += 1
        return True

    @property
    def _slice(self) -> float:
        """Most that is paid of a prompt at a time: whole tokens, so that sums are exact."""
        return max(1.0, float(int(self.rate * self._slice_seconds)))

    def _begin(self, now: float) -> None:
        """Somebody comes; when nobody waited, the time until now was idle."""
        if self.is_idle:
            self._allowance.idle(now)

    def _candidate(self) -> Payment | None:
        """The payment that would begin where the last one ended."""
        while self._prompts and (self._prompts[0][2].left or not self._prompts[0][2].prompt):
            heapq.heappop(self._prompts)
        while self._asking and self._asking[0][2].left:
            heapq.heappop(self._asking)
        prompts = max(self._prompts_tag, self._virtual)
        asking = max(self._asking_tag, self._virtual)
        is_prompt = bool(self._prompts) and (not self._asking or prompts <= asking)
        if not is_prompt and not self._asking:
            return None
        stream = (self._prompts if is_prompt else self._asking)[0][2]
        tokens = min(stream.prompt, self._slice) if is_prompt else stream.asks
        start = prompts if is_prompt else asking
        return Payment(stream, tokens, self._allowance.due(tokens), is_prompt, start)

    def _begin_payment(self, payment: Payment) -> None:
        self._paying = payment
        self._before = self._allowance.pay(payment.tokens)
        self._virtual = payment.start
        if payment.is_prompt:
            self._prompts_tag = payment.start + payment.tokens / PROMPT_SHARE
            return
        self._asking_tag = payment.start + payment.tokens / (1 - PROMPT_SHARE)
        start, _, stream = heapq.heappop(self._asking)
        self._streams_virtual = start
        stream.tag = start + payment.tokens
