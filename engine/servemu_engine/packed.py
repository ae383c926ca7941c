"""Linear layers over weights that oneDNN has laid out for a few rows at a time, on CPU.

For 2 to 32 rows, which is what decoding has, the usual product of a wide layer takes up to six
times as long (facts/engine.md). The two operators are private to torch: they are tried and checked
on each layer, and the layer stays as it is where they are missing, fail or differ.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FEW_ROWS = 32
_WIDE = 8192
"""In float32 only wider layers gain on every CPU measured (an AVX2 and an AVX-512 EPYC)."""


class PackedLinear(nn.Module):
    """`nn.Linear` without a bias."""

    def __init__(self, packed: Tensor) -> None:
        super().__init__()
        self._packed = packed

    def forward(self, rows: Tensor) -> Tensor:
        return _packed_product(rows, self._packed)


def pack_linears(model: nn.Module) -> int:
    """Replace the layers of `model` that gain; how many. A tied embedding keeps its own copy."""
    count = 0
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            packed = _pack(layer) if _gains(layer) else None
            if packed is not None:
                setattr(parent, name, packed)
                count += 1
    return count


def _gains(layer: nn.Module) -> bool:
    if type(layer) is not nn.Linear or layer.bias is not None or layer.weight.device.type != "cpu":
        return False
    is_wide = layer.out_features >= _WIDE
    return layer.weight.dtype == torch.bfloat16 or (layer.weight.dtype == torch.float32 and is_wide)


@torch.inference_mode()
def _pack(layer: nn.Module) -> PackedLinear | None:
    weight = layer.get_parameter("weight")
    probe = torch.linspace(-1, 1, 3 * weight.shape[1]).view(1, 3, -1).to(weight.dtype)
    try:
        packed = PackedLinear(torch.ops.mkldnn._reorder_linear_weight(weight, _FEW_ROWS))
        got = packed(probe)
    except (AttributeError, NotImplementedError, RuntimeError):
        return None
    expected = F.linear(probe, weight)
    tolerance = 0.02 if weight.dtype == torch.bfloat16 else 1e-4
    is_close = (got - expected).abs().max() <= tolerance * expected.abs().max()
    return packed if is_close else None


def _packed_product(rows: Tensor, packed: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, None, "none", [], "")
    return product
