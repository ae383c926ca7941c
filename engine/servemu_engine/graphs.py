"""Decoding steps as CUDA graphs: captured once for a number of rows and a length, then replayed.

Of a step of a small model most time is Python and the launching of kernels; a graph is one launch.
What a graph reads of a step lies in tensors that stay where they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from servemu_engine.cache import DecodeGroup, Layout, Segment, SlotCache

Capture = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
"""Records what a function does on the device; back comes what does it again, over the same memory.

The captures of one have their memory in common: what one of them gave is read before the next."""
Forward = Callable[[Tensor, Layout], Tensor]
"""Ids [rows] to logits [rows, vocab]."""

_MOST_GRAPHS = 48
_SHORTEST = 256


@dataclass(frozen=True, slots=True)
class Shape:
    """What is fixed in a graph."""

    rows: int
    length: int
    """Most tokens of a sequence after the step."""
    is_by_slot: bool
    """Row i is that of slot i, so that the attention reads the cache in place. Else rows are in any
    slots, and what they hold is copied first."""


def shape_for(segments: Sequence[Segment], cache: tuple[int, int]) -> Shape:
    """Powers of two that hold the rows and the longest sequence, within `cache`, (slots, length).

    By slot where that at most doubles the rows.
    """
    num_slots, longest = cache
    rows = _power_of_two(len(segments))
    by_slot = _power_of_two(1 + max(s.slot for s in segments))
    length = max(_SHORTEST, _power_of_two(max(s.stop for s in segments)))
    is_by_slot = by_slot <= 2 * rows
    return Shape(min(by_slot if is_by_slot else rows, num_slots), min(length, longest), is_by_slot)


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


@dataclass(slots=True)
class _Graph:
    inputs: Tensor
    """[ids, slots and positions; rows]"""
    replay: Callable[[], Tensor]


class DecodeGraphs:
    """The graphs of one cache, which has a spare slot for rows that nobody is in."""

    def __init__(self, cache: SlotCache, forward: Forward, captures: Callable[[], Capture]) -> None:
        self._cache = cache
        self._forward = forward
        self._captures = captures
        self._capture = captures()
        self._graphs: dict[Shape, _Graph] = {}
        """Last used last."""

    def logits(self, ids: Sequence[int], segments: Sequence[Segment]) -> Tensor:
        """[segments, vocab] of one token each. Raises RuntimeError where it cannot be captured."""
        shape = shape_for(segments, self._cache.shape)
        rows = [s.slot if shape.is_by_slot else i for i, s in enumerate(segments)]
        columns = [[0] * shape.rows, [self._cache.shape[0]] * shape.rows, [0] * shape.rows]
        for row, token, segment in zip(rows, ids, segments, strict=True):
            for column, number in zip(columns, (token, segment.slot, segment.start), strict=True):
                column[row] = number
        graph = self._graphs.pop(shape, None)
        inputs = torch.tensor(columns)
        if graph is None:
            graph = self._captured(shape, inputs)
        self._graphs[shape] = graph
        graph.inputs.copy_(inputs)
        logits = graph.replay()
        return logits[torch.tensor(rows, device=logits.device)]

    def drop(self) -> None:
        """Before the cache gets other memory."""
        if self._graphs:
            self._graphs.clear()
            # Memory that no graph has any more is not taken again (torch.cuda.graph_pool_handle).
            self._capture = self._captures()

    def _captured(self, shape: Shape, inputs: Tensor) -> _Graph:
        """A graph of that shape. `inputs`: of the step at hand, since capturing may run it."""
        while len(self._graphs) >= _MOST_GRAPHS:
            del self._graphs[next(iter(self._graphs))]
        keys = self._cache.keys[0]
        assert keys is not None  # the check at load has run
        inputs = inputs.to(keys.device, copy=True)
        ids, slots, positions = inputs.unbind()

        def step() -> Tensor:
            # A layout of its own: its masks are made of positions that a replay changes.
            return self._forward(ids, _layout(shape, slots, positions))

        return _Graph(inputs, self._capture(step))


def _layout(shape: Shape, slots: Tensor, positions: Tensor) -> Layout:
    held = slice(0, shape.rows) if shape.is_by_slot else slots
    group = DecodeGroup(slice(0, shape.rows), held, positions, shortest=0, length=shape.length)
    return Layout((), 0, slots, positions, (group,), is_fused=True)


def cuda_captures(device: torch.device) -> Callable[[], Capture]:
    """Real graphs. Each `Capture` has a memory pool of its own."""
    return lambda: _cuda_capture(device)


def _cuda_capture(device: torch.device) -> Capture:
    pool = torch.cuda.graph_pool_handle()

    def capture(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device):
            _warm_up(step)
            # Other engines use the device meanwhile, each in a thread of its own.
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                logits = step()

        def replay() -> Tensor:
            with torch.cuda.device(device):
                graph.replay()
            return logits

        return replay

    return capture


def _warm_up(step: Callable[[], Tensor]) -> None:
    """What libraries set up at their first calls must not be captured (torch.cuda.graph)."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(stream)
