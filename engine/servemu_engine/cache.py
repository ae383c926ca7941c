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
    decode_length: int = field(init=False)
    """Longest decoding sequence after this step, in tokens."""
    _masks: dict[tuple[int, int | None], Tensor | None] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        slots = [s.slot for s in self.segments for _ in range(s.begin, s.end)]
        positions = [position for s in self.segments for position in range(s.start, s.stop)]
        pair = torch.tensor([slots, positions], device=self.device)
        self.slots, self.positions = pair[0], pair[1]
        self.decode_length = max((s.stop for s in self.segments[: self.num_decode]), default=0)

    @property
    def decode_slots(self) -> slice | Tensor:
        """A slice (a view, no copy) where the decoding slots lie side by side."""
        first = self.segments[0].slot
        if self.segments[self.num_decode - 1].slot - first + 1 == self.num_decode:
            return slice(first, first + self.num_decode)
        return self.slots[: self.num_decode]

    def decode_mask(self, dtype: torch.dtype, window: int | None) -> Tensor | None:
        """Added to the scores: [sequences, 1, 1, decode_length]; None where nothing is hidden."""
        if (-1, window) not in self._masks:
            positions = self.positions[: self.num_decode].view(-1, 1, 1, 1)
            shortest = min(s.stop for s in self.segments[: self.num_decode])
            same = shortest == self.decode_length and not (window and shortest > window)
            mask = None if same else self._mask(positions, self.decode_length, window).to(dtype)
            self._masks[-1, window] = mask
        return self._masks[-1, window]

    def prefill_mask(self, segment: Segment, dtype: torch.dtype, window: int | None) -> Tensor:
        """Added to the scores: [segment's tokens, segment.stop]."""
        key = (segment.begin, window)
        mask = self._masks.get(key)
        if mask is None:
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

    def reshape(self, num_slots: int, length: int, sources: tuple[int, ...]) -> None:
        """New slots; slot `i` gets what was in `sources[i]` (-1: nothing). On CPU, memory that no
        token was written to is address space only."""
        self.shape = (num_slots, length)
        pairs = [(new, old) for new, old in enumerate(sources) if old >= 0]
        self.keys = [self._moved(tensor, pairs) for tensor in self.keys]
        self.values = [self._moved(tensor, pairs) for tensor in self.values]

    def _moved(self, old: Tensor | None, pairs: list[tuple[int, int]]) -> Tensor | None:
        if old is None:
            return None
        fresh = _zeros(old, (self.shape[0], old.shape[1], self.shape[1], old.shape[3]))
        kept = min(old.shape[2], self.shape[1])
        for new_slot, old_slot in pairs:
            fresh[new_slot, :, :kept] = old[old_slot, :, :kept]
        return fresh

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
