"""Who is in the next step: admission, chunked prefill, slots. No torch, no asyncio."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from servemu_engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the KV cache may hold. All figures in tokens, but `max_slots`."""

    max_slots: int
    kv_tokens: int
    """Slots times their length never exceeds this."""
    window: int
    """Longest sequence; at most `kv_tokens`, so one always fits."""
    shortest: int = 1024

    def length_for(self, num_tokens: int) -> int:
        """Slot length for a sequence: doubled from `shortest`, at most the window."""
        length = min(self.shortest, self.kv_tokens)
        while length < num_tokens:
            length *= 2
        return min(length, self.window)

    def slots_for(self, length: int) -> int:
        return max(1, min(self.max_slots, self.kv_tokens // length))


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
class Reshape:
    """New shape of the cache. Slot `i` gets what was in `sources[i]`; -1: nothing."""

    num_slots: int
    length: int
    sources: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One run of the device: the cache's new shape if any, decode rows by slot, prefill rows."""

    decode: tuple[Row, ...]
    prefill: tuple[Row, ...]
    reshape: Reshape | None = None

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.decode + self.prefill


class Scheduler:
    """First come, first served; who decodes goes first, prefill fills up the step's budget.

    Paused sequences keep their slot until somebody waits for it.
    """

    def __init__(self, capacity: Capacity, prefill_chunk: int) -> None:
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._capacity = capacity
        self._prefill_chunk = prefill_chunk
        self._length = capacity.length_for(1)
        self._free = list(range(capacity.slots_for(self._length)))
        self._reshape: Reshape | None = Reshape(len(self._free), self._length, ())

    @property
    def has_work(self) -> bool:
        """Whether a step would run anything."""
        return any(not sequence.is_paused for sequence in (*self.running, *self.waiting))

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """It is finished or cancelled; its slot is free in the next step. Unknown: ignored."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._release(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def schedule(self) -> Step:
        """The rows of the next step; may admit, evict and change the shape of the cache."""
        self._make_room()
        self._admit()
        decode = [s for s in self.running if s.num_pending == 1 and not s.is_paused]
        decode.sort(key=lambda sequence: sequence.slot or 0)
        rows = tuple(Row(sequence, sequence.num_cached, 1) for sequence in decode)
        reshape, self._reshape = self._reshape, None
        return Step(rows, tuple(self._prefill_rows()), reshape)

    def _prefill_rows(self) -> Iterable[Row]:
        budget = self._prefill_chunk
        for sequence in self.running:
            if sequence.num_pending == 1 or sequence.is_paused:
                continue
            count = min(budget, sequence.num_pending)
            if count == 0:
                return
            budget -= count
            yield Row(sequence, sequence.num_cached, count)

    def _admit(self) -> None:
        budget = self._prefill_chunk - sum(
            s.num_pending for s in self.running if s.num_pending > 1 and not s.is_paused
        )
        while budget > 0:
            sequence = next((s for s in self.waiting if not s.is_paused), None)
            if sequence is None or not self._find_slot_for(sequence):
                return
            self.waiting.remove(sequence)
            self._free.sort(reverse=True)
            sequence.slot = self._free.pop()
            self.running.append(sequence)
            budget -= sequence.num_pending

    def _find_slot_for(self, sequence: Sequence) -> bool:
        """Whether there is a slot now; paused sequences give theirs up, the cache is reshaped."""
        paused = [s for s in self.running if s.is_paused]
        while not self._fits(sequence):
            if not paused:
                return False
            self._evict(paused.pop())
        length = self._needed_length(sequence)
        if length > self._length or not self._free:
            self._change_shape(length)
        return True

    def _fits(self, sequence: Sequence) -> bool:
        if self._free and len(sequence.tokens) <= self._length:
            return True
        slots = self._capacity.slots_for(self._needed_length(sequence))
        return len(self.running) < slots

    def _make_room(self) -> None:
        """Before a sequence outgrows its slot: longer slots, and the newest leave if need be."""
        while self.running and self._needed_length() > self._length:
            length = self._needed_length()
            if len(self.running) <= self._capacity.slots_for(length):
                self._change_shape(length)
                return
            paused = [s for s in self.running if s.is_paused]
            self._evict(paused[-1] if paused else self.running[-1])

    def _needed_length(self, *more: Sequence) -> int:
        return self._capacity.length_for(max(len(s.tokens) for s in (*self.running, *more)))

    def _evict(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._release(sequence)
        if sequence.is_paused:
            self.waiting.append(sequence)
        else:
            self.waiting.appendleft(sequence)

    def _release(self, sequence: Sequence) -> None:
        assert sequence.slot is not None
        self._free.append(sequence.slot)
        sequence.evict()

    def _change_shape(self, length: int) -> None:
        sources = []
        for slot, sequence in enumerate(self.running):
            assert sequence.slot is not None
            sources.append(sequence.slot)
            sequence.slot = slot
        if self._reshape is not None:
            previous = self._reshape.sources
            sources = [previous[s] if s < len(previous) else -1 for s in sources]
        num_slots = self._capacity.slots_for(length)
        self._length = length
        self._free = list(range(len(self.running), num_slots))
        self._reshape = Reshape(num_slots, length, tuple(sources))
