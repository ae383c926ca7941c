"""Runner B: the step of Llama-like models on CPU as one compiled function, checked at load.

Faster than the same step in torch, and its numbers do not depend on who else is in the batch.
Keys and values are float32. Weights are float32 or bfloat16 in memory, and then activations are
float32; or both are int16 in blocks that share a scale, which stays nearer to float32 than bfloat16
weights do (tests/clients/test_real_weights_as_integers.py).
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from servemu_engine.compiled_check import PROBE, probe
from servemu_engine.compiled_packing import PackedModel, Precision, pack
from servemu_engine.compiled_weights import CompiledWeights
from servemu_engine.compiling import NotCompiled, compiled_library, panel_width
from servemu_engine.sampler import Sampled
from servemu_engine.scheduler import Row, Step
from servemu_engine.slots import Copy, Reshape
from servemu_engine.step_rows import Segment, flat, next_tokens
from servemu_engine.threads import NUM_THREADS, use_threads

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MOST_THREADS = 64
_ROWS_OF_ATTENTION = 24
"""Query heads of one piece of the attention: few enough for their scores to stay in a cache."""
_PHASES_OF_LAYER = 12
_TOLERANCES: dict[Precision, float] = {"float32": 1e-3, "bfloat16": 1e-3, "int16": 0.02}
"""Of the logits, relative to their spread. bfloat16 weights are compared with themselves."""

_POINTERS = (
    *("spans", "picked", "cos", "sin", "x", "normed", "qkv", "attended", "gated", "blocks"),
    *("logits", "scratch", "claims"),
)


class _Step(ctypes.Structure):
    """`Step` of compiled_step.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("num_rows", "num_spans", "num_picked", "length")),
        *((name, ctypes.c_int64) for name in ("num_threads", "scratch_size")),
        *((name, ctypes.c_void_p) for name in _POINTERS),
    ]


class PanelCache:
    """Keys as [layers, slots, kv heads, length / panel, head size, panel], values as [layers,
    slots, kv heads, length, padded head size]. What no token was written to is never read."""

    def __init__(self, weights: CompiledWeights, panel: int) -> None:
        self._weights = weights
        self._panel = panel
        self._stores: tuple[Tensor, Tensor] | None = None
        self.length = 0
        """Of a slot, in tokens: whole panels."""

    @property
    def num_bytes_per_token(self) -> int:
        """Of keys and values."""
        model = self._weights.model
        size = model.head_size + self._weights.padded(model.head_size)
        return int(4 * model.num_layers * model.kv_heads * size)

    def reshape(self, change: Reshape) -> None:
        """New slots, with what the old ones hold."""
        model, old = self._weights.model, self._stores
        self.length = self._weights.padded(change.length)
        slots = (model.num_layers, change.num_slots, model.kv_heads)
        keys = (*slots, self.length // self._panel, model.head_size, self._panel)
        values = (*slots, self.length, self._weights.padded(model.head_size))
        self._stores = new = torch.empty(keys), torch.empty(values)
        for layer, of_keys, of_values in zip(self._weights.layers, *new, strict=True):
            layer.keys, layer.values = of_keys.data_ptr(), of_values.data_ptr()
        if old is not None:
            for slot, (source, count) in enumerate(
                zip(change.sources, change.lengths, strict=True)
            ):
                if source >= 0:
                    self._move((old, source), (new, slot), count)

    def copy(self, copy: Copy) -> None:
        """One slot begins like another."""
        assert self._stores is not None
        self._move((self._stores, copy.source), (self._stores, copy.target), copy.count)

    def _move(
        self,
        source: tuple[tuple[Tensor, Tensor], int],
        target: tuple[tuple[Tensor, Tensor], int],
        count: int,
    ) -> None:
        panels = -(-count // self._panel)
        for old, new, part in zip(source[0], target[0], (panels, count), strict=True):
            new[:, target[1], :, :part] = old[:, source[1], :, :part]


class CompiledRunner:
    """Owns packed weights and the KV cache. `run` belongs to one thread.

    `library`: of `compiled_library`. `num_threads`: cores a step may use; None: as torch decides
    for the process.
    """

    def __init__(
        self, packed: PackedModel, library: ctypes.CDLL, num_threads: int | None = None
    ) -> None:
        library.row_bytes.restype = ctypes.c_int64
        self._run_step = library.run_step
        self._run_step.restype = None
        self._panel = packed.sizes.panel
        self._weights = CompiledWeights(packed)
        self._cache = PanelCache(self._weights, self._panel)
        depths = packed.sizes.depths().values()
        self._row_bytes = max(int(library.row_bytes(ctypes.c_int64(depth))) for depth in depths)
        self._num_threads = min(num_threads or NUM_THREADS, _MOST_THREADS)
        self._angles = (torch.empty(0), torch.empty(0))

    @classmethod
    def of(
        cls,
        model: "PreTrainedModel",
        folder: Path,
        num_threads: int | None = None,
        precision: Precision | None = None,
    ) -> "CompiledRunner":
        """Of a model that is packed here. `folder`: where the compiled library is kept. Raises
        `NotCompiled`."""
        library = compiled_library(folder)
        return cls(pack(model, panel_width(library), precision), library, num_threads)

    @property
    def packed(self) -> PackedModel:
        return self._weights.packed

    @property
    def num_bytes_per_token(self) -> int:
        """Of keys and values."""
        return self._cache.num_bytes_per_token

    @property
    def kv_layers(self) -> dict[str, int]:
        """On CPU, all of them."""
        return {"cpu": self._weights.model.num_layers}

    def step_bytes(self, num_tokens: int, num_rows: int) -> int:
        """Small beside the weights."""
        return 0

    @torch.inference_mode()
    def check(self) -> None:
        """Two tiny steps, compared with what the model's own forward gave when it was packed.
        Raises `NotCompiled` if they differ."""
        ids = probe(self.packed.sizes.vocab_size)
        self._reshape(Reshape(2, PROBE, ()))
        half = PROBE // 2
        first = self._forward(ids[:half], [Segment(0, half, 1, 0)])
        mixed = [Segment(0, 1, 0, 0), Segment(1, 1 + half, 1, half)]
        second = self._forward(ids[:1] + ids[half:], mixed)
        got, wanted = torch.cat([first, second]), self.packed.tensors["reference"]
        spread = (wanted - wanted.mean(-1, keepdim=True)).norm()
        if not (got - wanted).norm() <= _TOLERANCES[self.packed.sizes.precision] * spread:
            raise NotCompiled(f"other logits than those of {self.packed.sizes.architecture}")

    @torch.inference_mode()
    def run(self, step: Step) -> list[tuple[Row, Sampled]]:
        """The next token of each row that samples, in the order of `step.rows`; before them, rows
        whose logits are no numbers, sampling or not."""
        use_threads(1)  # torch's other threads would spin on the step's cores
        if step.reshape is not None:
            self._reshape(step.reshape)
        for copy in step.copies:
            self._cache.copy(copy)
        if not step.rows:
            return []
        return next_tokens(step, self._forward(*flat(step)))

    def _reshape(self, change: Reshape) -> None:
        self._cache.reshape(change)
        packed = self._weights.packed
        angles = torch.arange(self._cache.length).float().outer(packed.tensors["rotation"])
        angles = torch.cat([angles, angles], dim=-1)
        scaling = packed.sizes.rotation_scaling
        self._angles = (angles.cos() * scaling, angles.sin() * scaling)

    def _forward(self, ids: Sequence[int], segments: Sequence[Segment]) -> Tensor:
        """Logits of the last token of each segment: [segments, vocab]."""
        buffers = self._buffers(ids, segments)
        step = _Step(
            num_rows=len(ids),
            num_spans=len(buffers["spans"]),
            num_picked=len(segments),
            length=self._cache.length,
            num_threads=self._num_threads,
            scratch_size=buffers["scratch"].shape[1],
            **{name: tensor.data_ptr() for name, tensor in buffers.items()},
        )
        self._run_step(ctypes.byref(self._weights.model), ctypes.byref(step))
        return buffers["logits"][:, : self._weights.packed.sizes.vocab_size]

    def _buffers(self, ids: Sequence[int], segments: Sequence[Segment]) -> dict[str, Tensor]:
        """What a step reads and writes, by its name in `_Step`."""
        model, padded, rows = self._weights.model, self._weights.padded, len(ids)
        x = torch.zeros(rows, padded(model.hidden))
        table = self._weights.packed.tensors["embedding"]
        x[:, : model.hidden] = F.embedding(torch.tensor(ids), table)
        return {
            "spans": self._spans(segments),
            "picked": torch.tensor([s.end - 1 for s in segments], dtype=torch.int32),
            "cos": self._angles[0],
            "sin": self._angles[1],
            "x": x,
            "normed": torch.empty_like(x),
            "qkv": torch.empty(rows, self._weights.layers[0].qkv.width),
            "attended": torch.empty(rows, model.heads * model.head_size),
            "gated": torch.empty(rows, padded(model.inner)),
            "blocks": torch.empty(rows, self._row_bytes, dtype=torch.uint8),
            "logits": torch.empty(len(segments), model.head.width),
            "scratch": torch.empty(self._num_threads, self._scratch_size(rows, segments)),
            "claims": torch.zeros(_PHASES_OF_LAYER * model.num_layers + 4, dtype=torch.int32),
        }

    def _scratch_size(self, rows: int, segments: Sequence[Segment]) -> int:
        """Numbers a thread needs, for attention or for a product."""
        model, padded = self._weights.model, self._weights.padded
        longest = padded(max(segment.stop for segment in segments))
        heads = _ROWS_OF_ATTENTION + model.heads // model.kv_heads
        attention: int = heads * (2 * padded(model.head_size) + longest + self._panel)
        return max(attention, 2 * self._panel * rows)

    def _spans(self, segments: Sequence[Segment]) -> Tensor:
        """[pieces, (slot, position, row, count)], int32: segments in pieces of a few tokens."""
        model = self._weights.model
        size = max(1, _ROWS_OF_ATTENTION // (model.heads // model.kv_heads))
        spans = [
            (s.slot, s.start + begin, s.begin + begin, min(size, s.end - s.begin - begin))
            for s in segments
            for begin in range(0, s.end - s.begin, size)
        ]
        return torch.tensor(spans, dtype=torch.int32)
