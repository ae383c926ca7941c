"""One linear layer of the compiled library, called between operators of torch."""

import ctypes

import pytest
import torch
import torch.nn.functional as F

from servemu_engine.compiled_weights import Linear
from servemu_engine.compiling import compiled_library


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return compiled_library(tmp_path_factory.mktemp("compiled"))


@pytest.mark.parametrize("num_threads", [1, 2, 3])
@pytest.mark.parametrize("depth", [1, 60, 576])
def test_rows_are_those_of_torch_whoever_is_beside_them(
    depth: int, num_threads: int, library: ctypes.CDLL
) -> None:
    panel, rows, width = int(library.panel_width()), 13, 7 * int(library.panel_width())
    x, weight, bias = torch.randn(rows, depth), torch.randn(width, depth), torch.randn(width)
    packed = weight.view(-1, panel, depth).transpose(1, 2).contiguous()
    layer = Linear(packed.data_ptr(), bias.data_ptr(), depth, width)
    together, alone = torch.empty(rows, width), torch.empty(rows, width)

    def run(x: torch.Tensor, out: torch.Tensor) -> None:
        sizes = (ctypes.c_int64(len(x)), ctypes.c_void_p(out.data_ptr()))
        x_pointer = ctypes.c_void_p(x.data_ptr())
        library.run_linear(
            ctypes.byref(layer), ctypes.c_int64(0), x_pointer, *sizes, ctypes.c_int64(num_threads)
        )

    run(x, together)
    for row in range(rows):
        run(x[row : row + 1], alone[row : row + 1])
    torch.testing.assert_close(together, F.linear(x, weight, bias), rtol=1e-4, atol=1e-4)
    assert torch.equal(alone, together)
