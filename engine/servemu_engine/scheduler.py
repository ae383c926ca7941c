"""Who is in the next step: admission, chunked prefill, preemption. No torch, no asyncio.

Bounds, in steps, with `chunk` prompt tokens a step:

* A running answer gets a token in every step, and a step holds at most `chunk` prompt tokens.
* Of the chunk, half is for the oldest prompt, however long, and the rest for the shortest ones: a
  prompt of p tokens that is either takes at most p / (chunk / 2) steps, whatever else waits.
* While nobody decodes there is nobody to stall, and a step takes `prefill_alone` prompt tokens.
* Both shrink where such steps take longer than an answer may stand still or a newcomer may wait:
  the same tokens take several times as long at the end of a long prompt as at its beginning.
* A prompt that begins like one being prefilled waits until it can have its keys and values.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from servemu_engine.sequence import Sequence
from servemu_engine.slots import WORTH_SHARING, Capacity, Copy, Reshape, SlotTable

LONGEST_STALL = 1.0
"""Seconds of a step that takes prompts in, nearly: one step is late to tell."""
_SMALLEST_CHUNK = 64
"""Prompt tokens; fewer would read all weights for little."""
_MOST_SHRUNK = 64


@dataclass(frozen=True, slots=True)
class Row:
    """`count` tokens of a sequence, from position `start` on, that the model sees in this step."""

    sequence: Sequence
    start: int
    count: int

    @property
    def samples(self) -> bool:
        """Whether the next token follows from this row."""
        return self.start + self.count == len(self.sequence.tokens)


@dataclass(frozen=True, slots=True)
class Step:
    """One run of the device: first `reshape`, then `copies` in order, then the rows at once."""

    decode: tuple[Row, ...]
    """By slot."""
    prefill: tuple[Row, ...]
    reshape: Reshape | None = None
    copies: tuple[Copy, ...] = ()

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.decode + self.prefill


class Scheduler:
    """First come, first served for slots; within a step who decodes goes first.

    Paused sequences keep their slot until somebody waits for it; then they are the first in line,
    once half of their lead has been read: who has lost a slot runs for a while in the next.
    """

    def __init__(self, capacity: Capacity, prefill_chunk: int, prefill_alone: int = 0) -> None:
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._capacity = capacity
        self._prefill_chunk = prefill_chunk
        self._shrunk = 1
        """By what both kinds of chunk are divided now."""
        self._prefill_alone = max(prefill_chunk, prefill_alone)
        self._slots = SlotTable(capacity)

    @property
    def has_work(self) -> bool:
        """Whether a step would run anything."""
        return any(not s.is_paused for s in self.running) or any(s.may_resume for s in self.waiting)

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence, *, broken: bool = False) -> None:
        """It is finished or cancelled; its slot is free in the next step. Unknown: ignored.

        `broken`: what is in its slot is good for nobody.
        """
        if sequence in self.running:
            self.running.remove(sequence)
            if broken:
                sequence.num_cached = 0
            self._slots.release(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def schedule(self) -> Step:
        """The rows of the next step; may admit, evict and change the shape of the cache."""
        self._make_room()
        self._admit()
        active = [s for s in self.running if not s.is_paused]
        decode = [s for s in active if s.num_pending == 1]
        decode.sort(key=lambda sequence: sequence.slot or 0)
        chunk = self._prefill_chunk if decode else self._prefill_alone
        budget = max(chunk // self._shrunk, min(chunk, _SMALLEST_CHUNK))
        counts = _shares([s for s in active if s.num_pending > 1], budget)
        reshape, copies = self._slots.take_changes()
        return Step(
            tuple(Row(sequence, sequence.num_cached, 1) for sequence in decode),
            tuple(Row(s, s.num_cached, counts[s]) for s in active if counts.get(s)),
            reshape,
            copies,
        )

    def took(self, step: Step, seconds: float) -> None:
        """How long a step was: the next ones get fewer prompt tokens, or more again."""
        if step.prefill and seconds > LONGEST_STALL:
            self._shrunk = min(2 * self._shrunk, _MOST_SHRUNK)
        elif step.prefill and seconds < LONGEST_STALL / 4:
            self._shrunk = max(self._shrunk // 2, 1)

    def _admit(self) -> None:
        """No more are looked at than could ever run at once."""
        ready = (sequence for sequence in self.waiting if sequence.may_resume)
        for sequence in tuple(islice(ready, self._capacity.max_slots)):
            if self._will_share(sequence):
                continue
            if not self._find_slot_for(sequence):
                return
            self.waiting.remove(sequence)
            self._slots.take(sequence)
            self.running.append(sequence)

    def _will_share(self, sequence: Sequence) -> bool:
        """Whether a prompt being prefilled will soon leave more to share than there is now."""
        coming = self._slots.num_coming(sequence)
        return (
            coming >= WORTH_SHARING and coming - self._slots.num_shared(sequence) >= WORTH_SHARING
        )

    def _find_slot_for(self, sequence: Sequence) -> bool:
        """Whether there is a slot now; paused sequences give theirs up, the cache is reshaped."""
        if self._lies_free(sequence):
            return True
        paused = [s for s in self.running if s.is_paused]
        while not self._fits(sequence):
            if not paused:
                return False
            self._evict(paused.pop())
        if self._lies_free(sequence):
            return True
        if self._slots.may_change:
            self._slots.change_shape(self._needed_length(sequence))
            return True
        return False

    def _lies_free(self, sequence: Sequence) -> bool:
        return self._slots.has_free and len(sequence.tokens) <= self._slots.length

    def _fits(self, sequence: Sequence) -> bool:
        if self._lies_free(sequence):
            return True
        slots = self._capacity.slots_for(self._needed_length(sequence))
        return len(self.running) < slots

    def _make_room(self) -> None:
        """Before a sequence outgrows its slot: longer slots, and the newest leave if need be."""
        while self.running and self._needed_length() > self._slots.length:
            length = self._needed_length()
            if len(self.running) <= self._capacity.slots_for(length):
                self._slots.change_shape(length)
                return
            paused = [s for s in self.running if s.is_paused]
            self._evict(paused[-1] if paused else self.running[-1])

    def _needed_length(self, *more: Sequence) -> int:
        return self._capacity.length_for(max(len(s.tokens) for s in (*self.running, *more)))

    def _evict(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._slots.release(sequence)
        self.waiting.appendleft(sequence)


def _shares(prefills: Iterable[Sequence], budget: int) -> dict[Sequence, int]:
    """Tokens of each in this step. `prefills`: oldest first."""
    prefills = list(prefills)
    counts = dict.fromkeys(prefills, 0)
    if not prefills:
        return counts
    counts[prefills[0]] = min(prefills[0].num_pending, (budget + 1) // 2)
    budget -= counts[prefills[0]]
    for sequence in sorted(prefills, key=lambda s: s.num_pending):
        more = min(budget, sequence.num_pending - counts[sequence])
        counts[sequence] += more
        budget -= more
    return counts
