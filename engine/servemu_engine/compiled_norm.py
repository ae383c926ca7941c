"""RMS norms as one compiled function where transformers has eight operators, in place of modules
that are seen to compute the same."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor, nn

from servemu_engine.compiling import NotCompiled, compiled_library

_TOLERANCE = 1e-5
_WORTH_SHARING = 1 << 15
"""Numbers. For fewer, waking another thread costs more."""


class _Norm(ctypes.Structure):
    """`Norm` of compiled_attention.h."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "weight", "out")),
        *((name, ctypes.c_int64) for name in ("rows", "size")),
        ("eps", ctypes.c_float),
        ("row", ctypes.c_int64),
    ]


class CompiledNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, in float32."""

    def __init__(self, library: ctypes.CDLL, weight: Tensor, eps: float) -> None:
        super().__init__()
        self._run = library.run_norm
        self._weight = weight.contiguous()
        self._eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous()
        out, size = torch.empty_like(x), x.shape[-1]
        pointers = x.data_ptr(), self._weight.data_ptr(), out.data_ptr()
        norm = _Norm(*pointers, x.numel() // size, size, self._eps, 0)
        num_threads = torch.get_num_threads() if x.numel() > _WORTH_SHARING else 1
        self._run(ctypes.byref(norm), ctypes.c_int64(num_threads))
        return out


def compile_norms(model: nn.Module, libraries: Path) -> int:
    """Replace the RMS norms of `model`; how many. 0 without a compiler, or if it is not float32 on
    CPU. `libraries`: the folder of compiled libraries."""
    try:
        library = compiled_library(libraries)
    except NotCompiled:
        return 0  # said by those who pack the linear layers
    count = 0
    for parent in list(model.modules()):
        for name, norm in list(parent.named_children()):
            compiled = _compiled(library, norm)
            if compiled is not None:
                setattr(parent, name, compiled)
                count += 1
    return count


@torch.inference_mode()
def _compiled(library: ctypes.CDLL, norm: nn.Module) -> CompiledNorm | None:
    """None: it is none, or not as transformers has them: times the weight, or one more (Gemma)."""
    weight = getattr(norm, "weight", None)
    eps = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    if "RMSNorm" not in type(norm).__name__ or weight is None or eps is None:
        return None
    if weight.dtype != torch.float32 or weight.device.type != "cpu" or weight.ndim != 1:
        return None
    probe = torch.linspace(-1, 2, 3 * len(weight)).view(1, 3, -1)
    expected = norm(probe)
    for factor in (weight, weight + 1):
        compiled = CompiledNorm(library, factor.detach(), float(eps))
        off_by = (compiled(probe) - expected).abs().max()
        if off_by <= _TOLERANCE * expected.abs().max():
            return compiled
    return None
