"""Linear layers through the compiled products, for models whose steps are transformers' modules.

Like the compiled step: a row does not depend on the rows beside it, and weights are float32,
bfloat16 in memory, or int16 in blocks; then the rows are int16 too, for the product only.
"""

import ctypes
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from servemu_engine.compiled_packing import PRECISIONS, Precision, panels
from servemu_engine.compiled_weights import Linear
from servemu_engine.compiling import compiled_library, panel_width

_WORTH_SHARING = 1 << 18
"""Products, about 4 us of one core. For fewer, waking another thread costs more."""


class LinearLibrary:
    """`run_linear` of the compiled library, kept in `folder`. Raises `NotCompiled`.

    `precision`: of the weights; None: that of each layer.
    """

    def __init__(self, folder: Path, precision: Precision | None = None) -> None:
        library = compiled_library(folder)
        self.panel = panel_width(library)
        self.precision = precision
        self._run = library.run_linear
        self._row_bytes = library.row_bytes
        self._row_bytes.restype = ctypes.c_int64

    def row_bytes(self, depth: int) -> int:
        """Of a row of integers."""
        return int(self._row_bytes(ctypes.c_int64(depth)))

    def run(self, layer: Linear, precision: int, rows: Tensor, blocks: Tensor | None) -> Tensor:
        """[..., depth] to [..., padded width], on as many threads as torch has here."""
        out = rows.new_empty(*rows.shape[:-1], layer.width)
        is_shared = rows.numel() * layer.width > _WORTH_SHARING
        self._run(
            ctypes.byref(layer),
            ctypes.c_int64(precision),
            ctypes.c_void_p(rows.data_ptr()),
            ctypes.c_int64(rows.numel() // layer.depth),
            ctypes.c_void_p(out.data_ptr()),
            ctypes.c_int64(torch.get_num_threads() if is_shared else 1),
            ctypes.c_void_p(None if blocks is None else blocks.data_ptr()),
        )
        return out


class CompiledLinear(nn.Module):
    """`nn.Linear` from weights [outputs, inputs]. Memory: one copy, in whole panels."""

    def __init__(self, library: LinearLibrary, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        of_weight: Precision = "bfloat16" if weight.dtype == torch.bfloat16 else "float32"
        self.precision = library.precision or of_weight
        self._library = library
        self._width, depth = weight.shape
        padding = -self._width % library.panel
        whole = F.pad(weight, (0, 0, 0, padding)) if padding else weight
        self._packed = panels(whole, library.panel, self.precision)
        self._bias = None if bias is None else F.pad(bias.float(), (0, padding))
        bias_at = None if self._bias is None else self._bias.data_ptr()
        self._layer = Linear(self._packed.data_ptr(), bias_at, depth, self._width + padding)
        self._number = PRECISIONS.index(self.precision)
        self._row_bytes = library.row_bytes(depth) if self.precision == "int16" else 0

    def forward(self, rows: Tensor) -> Tensor:
        given = rows.float().contiguous()
        blocks = None
        if self._row_bytes:
            size = given.numel() // self._layer.depth * self._row_bytes
            blocks = given.new_empty(size, dtype=torch.uint8)
        product = self._library.run(self._layer, self._number, given, blocks)
        return product[..., : self._width].to(rows.dtype)
