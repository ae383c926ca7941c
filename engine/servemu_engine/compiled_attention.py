"""Attention over the slots of the cache as one compiled function, as a transformers attention
function: exact lengths instead of masks, prompts and decoding rows at once."""

import ctypes
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from servemu_engine.attention import SLOT_ATTENTION, How, slot_attention
from servemu_engine.cache import Layout, Segment, layout_of
from servemu_engine.compiling import NotCompiled, compiled_library

_log = logging.getLogger(__name__)
_ROWS = 48
"""Query heads of one piece: few enough for their scores to stay in a cache."""
_WORTH_SHARING = 1 << 14
"""Numbers of keys and values that are read. For fewer, waking another thread costs more."""

_TOLERANCE = 1e-4


class _Attention(ctypes.Structure):
    """`Attention` of compiled_attention.h."""

    _fields_ = [
        *((n, ctypes.c_int64) for n in ("num_spans", "heads", "kv_heads", "head_size", "length")),
        ("window", ctypes.c_int64),
        *((name, ctypes.c_float) for name in ("scaling", "softcap")),
        *((name, ctypes.c_int64) for name in ("row_step", "head_step")),
        *((n, ctypes.c_void_p) for n in ("query", "keys", "values", "out", "spans", "scratch")),
        *((name, ctypes.c_int64) for name in ("scratch_size", "thread", "piece")),
    ]


def use_compiled_attention(libraries: Path) -> None:
    """From now on in this process, where there is a compiler and it is right."""
    try:
        compiled = CompiledAttention(libraries)
        compiled.check()
    except NotCompiled as reason:
        _log.warning("attention is torch's: %s", reason)
    else:
        AttentionInterface.register(SLOT_ATTENTION, compiled.attend)


class CompiledAttention:
    """Takes what `slot_attention` takes, and leaves to it what is not float32, no whole panels,
    or a step to be captured.

    `libraries`: the folder of compiled libraries.
    """

    def __init__(self, libraries: Path) -> None:
        library = compiled_library(libraries)
        library.panel_width.restype = ctypes.c_int64
        self._panel = int(library.panel_width())
        self._run = library.run_attention
        self._seen = threading.local()

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        attention_mask: Tensor | None,
        *,
        slot_layout: Layout,
        **how: Unpack[How],
    ) -> tuple[Tensor, None]:
        """`query` is [1, heads, tokens, head size]; back comes [1, tokens, heads, head size]."""
        if not (slot_layout.segments and self._takes(query, keys, values)):
            given = module, query, keys, values, attention_mask
            return slot_attention(*given, slot_layout=slot_layout, **how)
        return self._attended(query, (keys, values), slot_layout, how), None

    def _attended(
        self, query: Tensor, stores: tuple[Tensor, Tensor], layout: Layout, how: How
    ) -> Tensor:
        query = query if query.stride(3) == 1 else query.contiguous()
        heads, tokens, size = query.shape[1:]
        group = heads // stores[0].shape[1]
        spans, longest, work = self._pieces(layout, max(1, _ROWS // group))
        num_threads = torch.get_num_threads() if work * group * size > _WORTH_SHARING else 1
        scratch_size = size * self._panel + max(_ROWS, group) * (2 * size + longest + self._panel)
        buffers = {
            "query": query,
            "keys": stores[0],
            "values": stores[1],
            "out": query.new_empty(1, tokens, heads, size),
            "spans": spans,
            "scratch": query.new_empty(num_threads, scratch_size),
        }
        told = _Attention(
            num_spans=len(spans),
            scratch_size=scratch_size,
            **_told(query, stores[0], how),
            **{name: tensor.data_ptr() for name, tensor in buffers.items()},
        )
        self._run(ctypes.byref(told), ctypes.c_int64(num_threads))
        return buffers["out"]

    def check(self) -> None:
        """Against `slot_attention`. Raises `NotCompiled` if they differ."""
        segments = Segment(0, 1, 2, 40), Segment(1, 2, 0, 6), Segment(2, 40, 1, 5)
        size = 4 * self._panel
        query = torch.linspace(-3, 3, 40 * 6 * size).sin().view(1, 40, 6, size).transpose(1, 2)
        keys, values = torch.linspace(-9, 9, 2 * 3 * 2 * 50 * size).cos().view(2, 3, 2, 50, size)
        limited: tuple[How, ...] = ({}, {"sliding_window": 9}, {"softcap": 2.0})
        for limits in limited:
            layout = layout_of(segments, 2, query.device)
            given = query, keys, values, None
            got, _ = self.attend(nn.Identity(), *given, slot_layout=layout, **limits)
            wanted, _ = slot_attention(nn.Identity(), *given, slot_layout=layout, **limits)
            if not (got - wanted).abs().max() <= _TOLERANCE:
                raise NotCompiled("attention: other numbers than torch's")

    def _takes(self, query: Tensor, keys: Tensor, values: Tensor) -> bool:
        return (
            query.dtype == torch.float32
            and query.device.type == "cpu"
            and query.shape[-1] % self._panel == 0
            and keys.shape == values.shape
        )

    def _pieces(self, layout: Layout, size: int) -> tuple[Tensor, int, int]:
        """Of the step a thread saw last: [pieces, (slot, position, row, count)], int32, its
        longest sequence, and how many keys its rows see."""
        seen = self._seen.__dict__
        if seen.get("layout") is not layout or seen["size"] != size:
            spans = torch.tensor(list(_spans(layout.segments, size)), dtype=torch.int32)
            longest = max(segment.stop for segment in layout.segments)
            work = sum(s.stop * (s.end - s.begin) for s in layout.segments)
            seen.update(layout=layout, size=size, pieces=(spans, longest, work))
        pieces: tuple[Tensor, int, int] = seen["pieces"]
        return pieces


def _told(query: Tensor, keys: Tensor, how: How) -> dict[str, float]:
    """Sizes and limits, as `_Attention` has them."""
    return {
        "heads": query.shape[1],
        "kv_heads": keys.shape[1],
        "head_size": query.shape[3],
        "length": keys.shape[2],
        "row_step": query.stride(2),
        "head_step": query.stride(1),
        "scaling": how.get("scaling") or query.shape[3] ** -0.5,
        "window": how.get("sliding_window") or 0,
        "softcap": how.get("softcap") or 0.0,
    }


def _spans(segments: Sequence[Segment], size: int) -> list[tuple[int, int, int, int]]:
    return [
        (s.slot, s.start + begin, s.begin + begin, min(size, s.end - s.begin - begin))
        for s in segments
        for begin in range(0, s.end - s.begin, size)
    ]
