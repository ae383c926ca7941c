"""Linear layers over weights that are laid out for a few rows at a time, on CPU.

For 1 to 32 rows, which is what decoding has, the usual product takes up to six times as long
(facts/engine.md), and its rounding depends on the number of rows; these products' does not, so that
a greedy answer is the same alone and in a batch. The layout is the compiled step's where there is
a compiler (compiled_linear.py), else oneDNN's, whose two operators are private to torch. Either is
tried and checked on each layer, which stays as it is where its product is missing, fails or
differs.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from servemu_engine.compiled_linear import CompiledLinear, LinearLibrary
from servemu_engine.compiled_packing import Precision
from servemu_engine.compiling import NotCompiled
from servemu_engine.weight_sources import Progress, no_progress

Pack = Callable[[Tensor, Tensor | None], nn.Module]
"""A layer from weights [outputs, inputs] and bias. May raise AttributeError, NotImplementedError or
RuntimeError."""

_log = logging.getLogger(__name__)
_FEW_ROWS = 32
_TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.02}
_TOLERANCE_OF_INT16 = 5e-3
"""Of the largest product; real weights take about a third of it."""
_SIBLINGS = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("gate_proj", "up_proj"),
)
"""Layers that most families feed with the same rows: one wide product is faster than several."""


class PackedLinear(nn.Module):
    """`nn.Linear`, packed by oneDNN."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Raises AttributeError, NotImplementedError or RuntimeError without the operators."""
        super().__init__()
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _FEW_ROWS)
        self._bias = bias

    def forward(self, rows: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._packed, self._bias, "none", [], ""
        )
        return product


class _Fused:
    """The product of several layers for the rows that a thread saw last."""

    def __init__(self, linear: nn.Module, sizes: Sequence[int]) -> None:
        self.linear = linear
        self._sizes = list(sizes)
        self._seen = threading.local()

    def part(self, rows: Tensor, index: int) -> Tensor:
        """That of layer `index`. Computed anew for other rows, so that any order is right."""
        seen = self._seen.__dict__
        if rows is not seen.get("rows"):
            seen["rows"] = rows
            seen["parts"] = torch.split_with_sizes(self.linear(rows), self._sizes, -1)
        part: Tensor = seen["parts"][index]
        if index == len(self._sizes) - 1:
            seen.clear()
        return part


class _FusedPart(nn.Module):
    """One of the layers that were fused, in its old place."""

    def __init__(self, fused: _Fused, index: int) -> None:
        super().__init__()
        self._fused = fused
        self._index = index

    @property
    def linear(self) -> nn.Module:
        """The whole product."""
        return self._fused.linear

    def forward(self, rows: Tensor) -> Tensor:
        return self._fused.part(rows, self._index)


def packing(libraries: Path, precision: Precision | None = None) -> Pack:
    """Compiled products, from the folder of the libraries; without a compiler oneDNN's.

    `precision`: of compiled weights; None: as they are."""
    try:
        return partial(CompiledLinear, LinearLibrary(libraries, precision))
    except NotCompiled as reason:
        _log.warning("linear layers are oneDNN's: %s", reason)
        return PackedLinear


def pack_linears(
    model: nn.Module, pack: Pack = PackedLinear, progress: Progress = no_progress
) -> int:
    """Replace the linear layers of `model`; how many. A tied embedding keeps its own copy."""
    count = 0
    left: list[str] = []
    parents = list(model.modules())
    for number, parent in enumerate(parents):
        progress("pack", number, len(parents))
        for names in _groups(parent):
            layers = [parent.get_submodule(name) for name in names]
            packed = _packed(layers, pack)
            if packed is None:
                left += names
                continue
            if len(names) == 1:
                setattr(parent, names[0], packed)
            else:
                fused = _Fused(packed, [len(_weight(layer)) for layer in layers])
                for index, name in enumerate(names):
                    setattr(parent, name, _FusedPart(fused, index))
            count += len(names)
    if left:
        _log.warning("%d linear layers stay torch's, such as %s", len(left), left[0])
    return count


def has_integers(model: nn.Module) -> bool:
    """Whether linear layers of `model` were packed as int16."""
    return any(isinstance(m, CompiledLinear) and m.precision == "int16" for m in model.modules())


def held_bytes(model: nn.Module) -> int:
    """Of all weights of `model`, packed or not."""
    modules = list(model.modules())
    modules += {m.linear for m in modules if isinstance(m, _FusedPart)}
    tensors = {
        id(tensor): tensor
        for module in modules
        for tensor in (
            *module.parameters(recurse=False),
            *module.buffers(recurse=False),
            *(value for value in vars(module).values() if isinstance(value, Tensor)),
        )
    }
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _groups(parent: nn.Module) -> Iterator[tuple[str, ...]]:
    """Names of the layers of `parent` to pack, those to fuse together."""
    names = {name for name, layer in parent.named_children() if _is_packable(layer)}
    for siblings in _SIBLINGS:
        if names.issuperset(siblings):
            layers = [parent.get_submodule(name) for name in siblings]
            if len({(_weight(layer).shape[1], layer.bias is None) for layer in layers}) == 1:
                names.difference_update(siblings)
                yield siblings
    yield from ((name,) for name in sorted(names))


def _is_packable(layer: nn.Module) -> bool:
    return (
        type(layer) in (nn.Linear, Conv1D)
        and layer.get_parameter("weight").device.type == "cpu"
        and layer.get_parameter("weight").dtype in _TOLERANCES
    )


def _weight(layer: nn.Module) -> Tensor:
    """[outputs, inputs]"""
    weight = layer.get_parameter("weight")
    return weight.T if type(layer) is Conv1D else weight


@torch.inference_mode()
def _packed(layers: Sequence[nn.Module], pack: Pack) -> nn.Module | None:
    weight = torch.cat([_weight(layer) for layer in layers])
    biases: list[Tensor] = [
        layer.get_parameter("bias") for layer in layers if layer.bias is not None
    ]
    bias = torch.cat(biases) if biases else None
    probe = torch.linspace(-1, 1, 3 * weight.shape[1]).view(1, 3, -1).to(weight.dtype)
    try:
        packed = pack(weight, bias)
        got = packed(probe)
    except (AttributeError, NotImplementedError, RuntimeError):
        return None
    expected = F.linear(probe, weight, bias)
    is_int16 = isinstance(packed, CompiledLinear) and packed.precision == "int16"
    tolerance = _TOLERANCE_OF_INT16 if is_int16 else _TOLERANCES[weight.dtype]
    is_close = (got - expected).abs().max() <= tolerance * expected.abs().max()
    return packed if is_close else None
