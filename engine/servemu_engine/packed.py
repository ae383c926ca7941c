"""Linear layers over weights that oneDNN has laid out for a few rows at a time, on CPU.

For 1 to 32 rows, which is what decoding has, the usual product takes up to six times as long
(facts/engine.md), and its rounding depends on the number of rows; this one's does not, so that a
greedy answer is the same alone and in a batch. The two operators are private to torch: they are
tried and checked on each layer, and the layer stays as it is where they are missing, fail or
differ.
"""

import threading
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FEW_ROWS = 32
_TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.02}
_SIBLINGS = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("gate_proj", "up_proj"),
)
"""Layers that most families feed with the same rows: one wide product is faster than several."""


class PackedLinear(nn.Module):
    """`nn.Linear`, packed."""

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

    def __init__(self, linear: PackedLinear, sizes: Sequence[int]) -> None:
        self._linear = linear
        self._sizes = list(sizes)
        self._seen = threading.local()

    def part(self, rows: Tensor, index: int) -> Tensor:
        """That of layer `index`. Computed anew for other rows, so that any order is right."""
        seen = self._seen.__dict__
        if rows is not seen.get("rows"):
            seen["rows"] = rows
            seen["parts"] = torch.split_with_sizes(self._linear(rows), self._sizes, -1)
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

    def forward(self, rows: Tensor) -> Tensor:
        return self._fused.part(rows, self._index)


def pack_linears(model: nn.Module) -> int:
    """Replace the linear layers of `model`; how many. A tied embedding keeps its own copy."""
    count = 0
    for parent in list(model.modules()):
        for names in _groups(parent):
            layers = [parent.get_submodule(name) for name in names]
            packed = _pack(layers)
            if packed is None:
                continue
            if len(names) == 1:
                setattr(parent, names[0], packed)
            else:
                fused = _Fused(packed, [len(layer.get_parameter("weight")) for layer in layers])
                for index, name in enumerate(names):
                    setattr(parent, name, _FusedPart(fused, index))
            count += len(names)
    return count


def _groups(parent: nn.Module) -> Iterator[tuple[str, ...]]:
    """Names of the layers of `parent` to pack, those to fuse together."""
    names = {name for name, layer in parent.named_children() if _is_packable(layer)}
    for siblings in _SIBLINGS:
        if names.issuperset(siblings):
            layers = [parent.get_submodule(name) for name in siblings]
            if len({(layer.in_features, layer.bias is None) for layer in layers}) == 1:
                names.difference_update(siblings)
                yield siblings
    yield from ((name,) for name in sorted(names))


def _is_packable(layer: nn.Module) -> bool:
    return (
        type(layer) is nn.Linear
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype in _TOLERANCES
    )


@torch.inference_mode()
def _pack(layers: Sequence[nn.Module]) -> PackedLinear | None:
    weight = torch.cat([layer.get_parameter("weight") for layer in layers])
    biases: list[Tensor] = [
        layer.get_parameter("bias") for layer in layers if layer.bias is not None
    ]
    bias = torch.cat(biases) if biases else None
    probe = torch.linspace(-1, 1, 3 * weight.shape[1]).view(1, 3, -1).to(weight.dtype)
    try:
        packed = PackedLinear(weight, bias)
        got = packed(probe)
    except (AttributeError, NotImplementedError, RuntimeError):
        return None
    expected = F.linear(probe, weight, bias)
    is_close = (got - expected).abs().max() <= _TOLERANCES[weight.dtype] * expected.abs().max()
    return packed if is_close else None
