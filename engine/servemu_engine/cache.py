"""Keys and values of all running sequences, in slots, and which token of a step belongs to whom.

A step is one flat row of tokens, decoding sequences first, then the prefill of others: every linear
layer sees them at once, and only the attention looks at the layout.
"""

import math
import mmap
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from transformers import Cache

from servemu_engine.slots import Copy, Reshape
from servemu_engine.step_rows import Segment as Segment

_SHORT = 511
"""Sequences up to it share one batch of attention; beyond, those within a factor of two do."""


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

    def on(self, device: torch.device) -> "DecodeGroup":
        rows, slots = (i if isinstance(i, slice) else i.to(device) for i in (self.rows, self.slots))
        return replace(self, rows=rows, slots=slots, positions=self.positions.to(device))


@dataclass(slots=True)
class Layout:
    """Who is in one step; the first `num_decode` segments have one token each, sorted by slot."""

    segments: tuple[Segment, ...]
    num_decode: int
    slots: Tensor
    """[tokens]"""
    positions: Tensor
    """[tokens]"""
    groups: tuple[DecodeGroup, ...]
    is_fused: bool
    """Whether prompts are for kernels that know what causal is, and take no mask for it."""
    _masks: dict[tuple[int, int | None], Tensor | None] = field(init=False, default_factory=dict)
    """By (index of the group or -1 - index of the segment, sliding window)."""
    _elsewhere: "dict[torch.device, Layout]" = field(init=False, default_factory=dict)

    @property
    def device(self) -> torch.device:
        return self.slots.device

    def on(self, device: torch.device) -> "Layout":
        """The same step for the layers of another device: moved once."""
        if device == self.slots.device:
            return self
        if device not in self._elsewhere:
            slots, positions = self.slots.to(device), self.positions.to(device)
            groups = tuple(group.on(device) for group in self.groups)
            moved = replace(self, slots=slots, positions=positions, groups=groups)
            self._elsewhere[device] = moved
        return self._elsewhere[device]

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


def layout_of(segments: tuple[Segment, ...], num_decode: int, device: torch.device) -> Layout:
    """Of the segments of one step, the first `num_decode` of them decoding, by slot."""
    slots = [s.slot for s in segments for _ in range(s.begin, s.end)]
    at = [position for s in segments for position in range(s.start, s.stop)]
    pair = torch.tensor([slots, at], device=device)
    by_length: dict[int, list[Segment]] = {}
    for segment in segments[:num_decode]:
        by_length.setdefault(max(segment.stop, _SHORT).bit_length(), []).append(segment)
    groups = tuple(_group(alike, pair[1]) for alike in by_length.values())
    return Layout(segments, num_decode, pair[0], pair[1], groups, device.type != "cpu")


def _group(segments: list[Segment], positions: Tensor) -> DecodeGroup:
    rows = _index([s.begin for s in segments], positions.device)
    slots = _index([s.slot for s in segments], positions.device)
    lengths = [s.stop for s in segments]
    return DecodeGroup(rows, slots, positions[rows], min(lengths), max(lengths))


def _index(numbers: list[int], device: torch.device) -> slice | Tensor:
    """Of rising numbers: a slice where they are side by side."""
    if numbers[-1] - numbers[0] + 1 == len(numbers):
        return slice(numbers[0], numbers[-1] + 1)
    return torch.tensor(numbers, device=device)


class SlotCache(Cache):  # type: ignore[misc]  # transformers is untyped
    """A transformers cache: keys and values as [slots, kv heads, length, head size] a layer.

    `layout` is set before each step. `num_spare`: slots behind the others, for what nobody reads.
    """

    def __init__(self, num_layers: int, num_spare: int = 0) -> None:
        super().__init__(layers=[])
        self.layout: Layout | None = None
        self.keys: list[Tensor | None] = [None] * num_layers
        self.values: list[Tensor | None] = [None] * num_layers
        self.shape = (1, 1)
        """(slots, length), without the spare ones."""
        self._num_spare = num_spare

    @property
    def num_bytes_per_token(self) -> int:
        """Known after the first step."""
        tensors = [t for t in (*self.keys, *self.values) if t is not None]
        return sum(t.shape[1] * t.shape[3] * t.element_size() for t in tensors)

    def reshape(self, change: Reshape) -> None:
        """New slots, with what the old ones hold. On CPU, memory that no token was written to is
        address space only."""
        self.shape = (change.num_slots, change.length)
        for layer, (keys, values) in enumerate(zip(self.keys, self.values, strict=True)):
            # One at a time, so that old and new are never both there whole.
            self.keys[layer] = self._moved(keys, change)
            self.values[layer] = self._moved(values, change)

    def _moved(self, old: Tensor | None, change: Reshape) -> Tensor | None:
        if old is None:
            return None
        fresh = _zeros(old, self._shape_like(old))
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
            store = stores[layer] = _zeros(states, self._shape_like(states))
        layout = self.layout.on(states.device)
        store[layout.slots, :, layout.positions] = states[0].transpose(0, 1)
        return store

    def _shape_like(self, states: Tensor) -> tuple[int, int, int, int]:
        num_slots, length = self.shape
        return num_slots + self._num_spare, states.shape[1], length, states.shape[3]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0


def _zeros(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Zeros, since what a mask hides still reaches the sum as 0 times itself. On CPU from fresh
    pages, which take memory when they are first written: an empty slot costs nothing."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    pages = mmap.mmap(-1, math.prod(shape) * like.element_size())
    return torch.frombuffer(pages, dtype=like.dtype).view(shape)
