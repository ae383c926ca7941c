"""Keys and values of all running sequences, in slots, and which token of a step belongs to whom.

A step is one flat row of tokens, decoding sequences first, then the prefill of others: every linear
layer sees them at once, and only the attention looks at the layout.
"""

import math
import mmap
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import Cache

from servemu_engine.slots import Copy, Reshape

_SHORT = 511
"""Sequences up to it share one batch of attention; beyond, those within a factor of two do."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens `begin` to `end` of the step, the next of the sequence in `slot`, from `start` on."""

    begin: int
    end: int
    slot: int
    start: int

    @property
    def stop(self) -> int:
        """Length of the sequence after this step."""
        return self.start + self.end - self.begin


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Decoding sequences of about one length, whose attention runs as one batch."""

    rows: slice | Tensor
    """Their places among the tokens of the step."""
    slots: slice | Tensor
    """A slice, which is a view and no copy, where the slots lie side by side."""
    positions: Tensor
    """[sequences]"""
    shortest: int
    length: int
    """Shortest and longest of them after this step, in tokens."""


@dataclass(slots=True)
class Layout:
    """The segments of one step; the first `num_decode` have one token each, sorted by slot."""

    segments: tuple[Segment, ...]
    num_decode: int
    device: torch.device
    slots: Tensor = field(init=False)
    """[tokens]"""
    positions: Tensor = field(init=False)
    """[tokens]"""
    groups: tuple[DecodeGroup, ...] = field(init=False)
    _masks: dict[tuple[int, int | None], Tensor | None] = field(init=False, default_factory=dict)
    """By (index of the group or -1 - index of the segment, sliding window)."""

    def __post_init__(self) -> None:
        slots = [s.slot for s in self.segments for _ in range(s.begin, s.end)]
        positions = [position for s in self.segments for position in range(s.start, s.stop)]
        pair = torch.tensor([slots, positions], device=self.device)
        self.slots, self.positions = pair[0], pair[1]
        by_length: dict[int, list[Segment]] = {}
        for segment in self.segments[: self.num_decode]:
            by_length.setdefault(max(segment.stop, _SHORT).bit_length(), []).append(segment)
        self.groups = tuple(self._group(segments) for segments in by_length.values())

    def _group(self, segments: list[Segment]) -> DecodeGroup:
        rows = self._index([s.begin for s in segments])
        lengths = [s.stop for s in segments]
        return DecodeGroup(
            rows=rows,
            slots=self._index([s.slot for s in segments]),
            positions=self.positions[rows],
            shortest=min(lengths),
            length=max(lengths),
        )

    def _index(self, numbers: list[int]) -> slice | Tensor:
        """Of rising numbers: a slice where they are side by side."""
        if numbers[-1] - numbers[0] + 1 == len(numbers):
            return slice(numbers[0], numbers[-1] + 1)
        return torch.tensor(numbers, device=self.device)

    def decode_mask(self, index: int, dtype: torch.dtype, window: int | None) -> Tensor | None:
        """Added to the scores of a group: [sequences, 1, 1, length]; None: nothing is hidden."""
        if (index, window) not in self._masks:
            group = self.groups[index]
            hides = group.shortest < group.length or (window and group.shortest > window)
            positions = group.positions.view(-1, 1, 1, 1)
            mask = self._mask(positions, group.length, window).to(dtype) if hides else None
            self._masks[index, window] = mask
        return self._masks[index, window]

    def prefill_mask(self, index: int, dtype: torch.dtype, window: int | None) -> Tensor:
        """Added to the scores of a segment: [its tokens, segment.stop]."""
        key = (-1 - index, window)
        mask = self._masks.get(key)
        if mask is None:
            segment = self.segments[index]
            positions = self.positions[segment.begin : segment.end].unsqueeze(-1)
            mask = self._masks[key] = self._mask(positions, segment.stop, window).to(dtype)
        return mask

    def _mask(self, positions: Tensor, length: int, window: int | None) -> Tensor:
        keys = torch.arange(length, device=self.device)
        hidden = keys > positions
        if window:
            hidden = hidden | (keys <= positions - window)
        return torch.zeros(hidden.shape, device=self.device).masked_fill_(hidden, -torch.inf)


class SlotCache(Cache):  # type: ignore[misc]  # transformers is untyped
    """A transformers cache: keys and values as [slots, kv heads, length, head size] a layer.

    `layout` is set before each step.
    """

    def __init__(self, num_layers: int) -> None:
        super().__init__(layers=[])
        self.layout: Layout | None = None
        self.keys: list[Tensor | None] = [None] * num_layers
        self.values: list[Tensor | None] = [None] * num_layers
        self.shape = (1, 1)
        """(slots, length)"""

    @property
    def num_bytes_per_token(self) -> int:
        """Known after the first step."""
        tensors = [t for t in (*self.keys, *self.values) if t is not None]
        return sum(t.shape[1] * t.shape[3] * t.element_size() for t in tensors)

    def reshape(self, change: Reshape) -> None:
        """New slots, with what the old ones hold. On CPU, memory that no token was written to is
        address space only."""
        self.shape = (change.num_slots, change.length)
        self.keys = [self._moved(tensor, change) for tensor in self.keys]
        self.values = [self._moved(tensor, change) for tensor in self.values]

    def _moved(self, old: Tensor | None, change: Reshape) -> Tensor | None:
        if old is None:
            return None
        fresh = _zeros(old, (change.num_slots, old.shape[1], change.length, old.shape[3]))
        for slot, (source, count) in enumerate(zip(change.sources, change.lengths, strict=True)):
            if source >= 0:
                fresh[slot, :, :count] = old[source, :, :count]
        return fresh

    def copy(self, copy: Copy) -> None:
        """One slot begins like another."""
        for store in (*self.keys, *self.values):
            if store is not None:
                store[copy.target, :, : copy.count] = store[copy.source, :, : copy.count]

    def clear(self, slot: int) -> None:
        """What was no number in it would reach whoever has the slot next."""
        for store in (*self.keys, *self.values):
            if store is not None:
                store[slot].zero_()

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Write the step's [1, kv heads, tokens, head size]; back come the whole stores."""
        keys = self._written(self.keys, layer_idx, key_states)
        return keys, self._written(self.values, layer_idx, value_states)

    def _written(self, stores: list[Tensor | None], layer: int, states: Tensor) -> Tensor:
        assert self.layout is not None
        store = stores[layer]
        if store is None:
            num_slots, length = self.shape
            store = _zeros(states, (num_slots, states.shape[1], length, states.shape[3]))
            stores[layer] = store
        store[self.layout.slots, :, self.layout.positions] = states[0].transpose(0, 1)
        return store

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0


def _zeros(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Zeros, since what a mask hides still reaches the sum as 0 times itself. On CPU from fresh
    pages, which take memory when they are first written: an empty slot costs nothing."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    pages = mmap.mmap(-1, math.prod(shape) * like.element_size())
    return torch.frombuffer(pages, dtype=like.dtype).view(shape)
