"""The slots of the KV cache: whose they are, which tokens they hold, where prompts begin alike.

A slot that is given back keeps its tokens until somebody else needs it, so a prompt that begins
like an earlier one starts from a copy of its keys and values. No torch.
"""

from dataclasses import dataclass, field

from servemu_engine.prefixes import BLOCK, Prefixes, extend_keys
from servemu_engine.sequence import Sequence

WORTH_SHARING = BLOCK
"""Tokens. For fewer, running them again costs less than a copy, or than a step of waiting."""
_MOST_IDLE = 8
"""Idle slots that keep tokens before the oldest is used again and not one that was never written:
what was written to is memory."""
_COMPARED = 64


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
class Reshape:
    """New shape of the cache. Slot `i` gets what was in `sources[i]`; -1, or none: zeros."""

    num_slots: int
    length: int
    sources: tuple[int, ...]
    lengths: tuple[int, ...] = ()
    """Tokens of each source that count; the rest need not be moved."""


@dataclass(frozen=True, slots=True)
class Copy:
    """Slot `target` gets the keys and values of the first `count` tokens of slot `source`."""

    source: int
    target: int
    count: int


@dataclass(slots=True)
class _Slot:
    """The first `count` of `tokens` are cached in it; while it has an owner, that one counts."""

    tokens: list[int] = field(default_factory=list)
    count: int = 0
    owner: Sequence | None = None
    released: int = 0
    """Larger is later."""

    @property
    def num_cached(self) -> int:
        return self.count if self.owner is None else self.owner.num_cached

    @property
    def is_filling(self) -> bool:
        """Whether there will be more in it."""
        owner = self.owner
        return owner is not None and owner.num_pending > 1 and not owner.is_paused


class SlotTable:
    """All slots, and the changes that the device has yet to make."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.length = capacity.length_for(1)
        self._slots = [_Slot() for _ in range(capacity.slots_for(self.length))]
        self._reshape: Reshape | None = Reshape(len(self._slots), self.length, ())
        self._copies: list[Copy] = []
        self._prefixes = Prefixes()
        self._num_released = 0
        self._num_used = 0

    @property
    def has_free(self) -> bool:
        return self._num_used < len(self._slots)

    @property
    def may_change(self) -> bool:
        """Whether the shape can change in this step: not once copies name its slots."""
        return not self._copies

    def take(self, sequence: Sequence) -> None:
        """Give it a slot, with as much of its beginning as is cached anywhere."""
        source, count = self._best_prefix(sequence)
        target = self._choose()
        if count and self._is_continued(source, count):
            target = source
        elif count and source != target:
            self._copies.append(Copy(source, target, count))
        sequence.slot, sequence.num_cached = target, count
        self._slots[target] = _Slot(sequence.tokens, owner=sequence)
        self._num_used += 1
        self._prefixes.put(target, _keys_of(sequence, len(sequence.tokens)))

    def release(self, sequence: Sequence) -> None:
        """The slot is free; what it holds stays for others to begin with."""
        assert sequence.slot is not None
        self._num_released += 1
        self._num_used -= 1
        count = sequence.num_cached
        self._slots[sequence.slot] = _Slot(sequence.tokens, count, released=self._num_released)
        self._prefixes.put(sequence.slot, _keys_of(sequence, count))
        sequence.evict()

    def num_shared(self, sequence: Sequence) -> int:
        """Leading tokens of `sequence` that are cached now; its last one must always run."""
        return self._best_prefix(sequence)[1]

    def num_coming(self, sequence: Sequence) -> int:
        """Leading tokens of `sequence` that a prompt being prefilled will leave."""
        most = len(sequence.tokens) - 1
        for _, places in self._prefixes.alike(_keys_of(sequence, most)):
            for place in places:
                slot = self._slots[place]
                if slot.is_filling:
                    return num_common(slot.tokens, sequence.tokens, min(most, len(slot.tokens)))
        return 0

    def change_shape(self, length: int) -> None:
        """Slots of another length: those in use first, then idle ones, newest first."""
        used = [i for i, slot in enumerate(self._slots) if slot.owner is not None]
        idle = [i for i, slot in enumerate(self._slots) if slot.owner is None and slot.count]
        idle.sort(key=lambda i: -self._slots[i].released)
        num_slots = self.capacity.slots_for(length)
        sources = [*used, *idle][:num_slots]
        kept = [self._slots[i] for i in sources]
        for place, slot in enumerate(kept):
            slot.count = min(slot.count, length)
            if slot.owner is not None:
                slot.owner.slot = place
        if self._reshape is not None:
            before = self._reshape.sources
            sources = [before[s] if s < len(before) else -1 for s in sources]
        self.length = length
        self._slots = kept + [_Slot() for _ in range(num_slots - len(kept))]
        self._prefixes = Prefixes()
        for place, slot in enumerate(kept):
            keys: list[int] = []
            extend_keys(keys, slot.tokens, len(slot.tokens) if slot.owner else slot.count)
            self._prefixes.put(place, keys)
        lengths = tuple(slot.num_cached for slot in kept)
        self._reshape = Reshape(num_slots, length, tuple(sources), lengths)

    def take_changes(self) -> tuple[Reshape | None, tuple[Copy, ...]]:
        """What the device has to do before the next step, in this order."""
        changes = self._reshape, tuple(self._copies)
        self._reshape = None
        self._copies.clear()
        return changes

    def _best_prefix(self, sequence: Sequence) -> tuple[int, int]:
        """(slot, leading tokens of `sequence` that it holds); 0 tokens where it is not worth it."""
        most = len(sequence.tokens) - 1
        best = place = 0
        for depth, places in self._prefixes.alike(_keys_of(sequence, most)):
            for i in places:
                if best >= depth:  # nobody holds more
                    break
                held = min(self._slots[i].num_cached // BLOCK, depth)
                if held > best:
                    best, place = held, i
        slot = self._slots[place]
        count = num_common(slot.tokens, sequence.tokens, min(slot.num_cached, most)) if best else 0
        return place, count if count >= WORTH_SHARING else 0

    def _is_continued(self, place: int, count: int) -> bool:
        """Whether an idle slot may be used as it is: little else is in it, and it lies well."""
        slot = self._slots[place]
        return slot.owner is None and 2 * count >= slot.count and place in self._near()

    def _near(self) -> list[int]:
        """Free slots beside the used ones, if any: slots side by side are read without a copy."""
        free = [i for i, slot in enumerate(self._slots) if slot.owner is None]
        used = [i for i, slot in enumerate(self._slots) if slot.owner is not None]
        if not used:
            return free
        return [i for i in free if used[0] - 1 <= i <= used[-1] + 1]

    def _choose(self) -> int:
        """The slot that is missed least."""
        near = self._near()
        num_idle = sum(slot.owner is None and slot.count > 0 for slot in self._slots)
        empty = [i for i in near if not self._slots[i].count]
        idle = [i for i in near if self._slots[i].count]
        if empty and (num_idle < _MOST_IDLE or not idle):
            return empty[0]
        return min(idle, key=lambda i: self._slots[i].released)


def _keys_of(sequence: Sequence, count: int) -> list[int]:
    """Of the first `count` tokens."""
    extend_keys(sequence.block_keys, sequence.tokens, count)
    return sequence.block_keys[: count // BLOCK]


def num_common(one: list[int], other: list[int], most: int) -> int:
    """Leading tokens that are alike, at most `most`."""
    for begin in range(0, most, _COMPARED):
        end = min(begin + _COMPARED, most)
        if one[begin:end] != other[begin:end]:
            pairs = zip(one[begin:end], other[begin:end], strict=True)
            return begin + next(i for i, (a, b) in enumerate(pairs) if a != b)
    return most
