"""Linear layers through the compiled products, for models whose steps are transformers' modules.

Like the compiled step: a row's numbers do not depend on the rows beside it, activations are
float32, weights are float32 or bfloat16 in memory.
"""

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from servemu_engine.compiled_packing import huge_pages
from servemu_engine.compiled_weights import Linear
from servemu_engine.compiling import compiled_library

_PRECISIONS = {torch.float32: 0, torch.bfloat16: 1}
"""As compiled_products.h numbers them."""
_WORTH_SHARING = 1 << 18
"""Products, about 4 us of one core. For fewer, waking another thread costs more."""


class CompiledLinear(nn.Module):
    """`nn.Linear` from weights [outputs, inputs]. Memory: one copy, in whole panels."""

    def __init__(self, library: "LinearLibrary", weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self._library = library
        self._width, self._depth = weight.shape
        padding = -self._width % library.panel
        self._packed = huge_pages(
            ((self._width + padding) // library.panel, self._depth, library.panel), weight.dtype
        )
        whole = F.pad(weight, (0, 0, 0, padding)) if padding else weight
        self._packed.copy_(whole.view(-1, library.panel, self._depth).transpose(1, 2))
        self._bias = None if bias is None else F.pad(bias.float(), (0, padding))
        self._layer = Linear(
            self._packed.data_ptr(),
            None if self._bias is None else self._bias.data_ptr(),
            self._depth,
            self._width + padding,
        )
        self._precision = ctypes.c_int64(_PRECISIONS[weight.dtype])

    def forward(self, rows: Tensor) -> Tensor:
        product = self._library.run(self._layer, self._precision, rows.float().contiguous())
        return product[..., : self._width].to(rows.dtype)


class LinearLibrary:
    """`run_linear` of the compiled library. Raises `NotCompiled`."""

    def __init__(self, folder: Path) -> None:
        library = compiled_library(folder)
        library.panel_width.restype = ctypes.c_int64
        self.panel = int(library.panel_width())
        self._run: Callable[..., None] = library.run_linear

    def run(self, layer: Linear, precision: ctypes.c_int64, rows: Tensor) -> Tensor:
        """[..., depth] to [..., padded width], on as many threads as torch has here."""
        out = rows.new_empty(*rows.shape[:-1], layer.width)
        work = rows.numel() * layer.width
        self._run(
            ctypes.byref(layer),
            precision,
            ctypes.c_void_p(rows.data_ptr()),
            ctypes.c_int64(rows.numel() // layer.depth),
            ctypes.c_void_p(out.data_ptr()),
            ctypes.c_int64(torch.get_num_threads() if work > _WORTH_SHARING else 1),
            None,
        )
        return out
