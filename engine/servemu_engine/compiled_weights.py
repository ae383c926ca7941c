"""The C structures of the compiled step over a packed model."""

import ctypes

from torch import Tensor

from servemu_engine.compiled_packing import PRECISIONS, PackedModel

_MATRICES = ("qkv", "out", "gate_up", "down")
_NORMS = ("norm_in", "norm_post", "norm_q", "norm_k")


class Linear(ctypes.Structure):
    """`Linear` of compiled_products.h."""

    _fields_ = [
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("depth", ctypes.c_int64),
        ("width", ctypes.c_int64),
    ]


class Layer(ctypes.Structure):
    """`Layer` of compiled_step.c."""

    _fields_ = [
        *((name, Linear) for name in _MATRICES),
        *((name, ctypes.c_void_p) for name in _NORMS),
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
        ("window", ctypes.c_int64),
    ]


_SIZES = ("num_layers", "hidden", "inner", "heads", "kv_heads", "head_size")


class Model(ctypes.Structure):
    """`Model` of compiled_step.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in (*_SIZES, "precision")),
        ("eps", ctypes.c_float),
        ("scaling", ctypes.c_float),
        ("layers", ctypes.POINTER(Layer)),
        ("norm_last", ctypes.c_void_p),
        ("head", Linear),
    ]


class CompiledWeights:
    """Points into the tensors of `packed`, which it keeps."""

    def __init__(self, packed: PackedModel) -> None:
        self.packed = packed
        sizes = packed.sizes
        self.layers = (Layer * sizes.num_layers)(*map(self._layer, range(sizes.num_layers)))
        self.model = Model(
            precision=PRECISIONS.index(sizes.precision),
            eps=sizes.eps,
            scaling=sizes.scaling,
            layers=ctypes.cast(self.layers, ctypes.POINTER(Layer)),
            norm_last=packed.tensors["norm_last"].data_ptr(),
            head=self._linear("head", "head"),
            **{name: getattr(sizes, name) for name in _SIZES},
        )

    def padded(self, size: int) -> int:
        """Up to whole panels."""
        return self.packed.sizes.padded(size)

    def _layer(self, number: int) -> Layer:
        return Layer(
            window=self.packed.sizes.windows[number],
            **{kind: self._linear(f"{number}.{kind}", kind) for kind in _MATRICES},
            **{norm: _pointer(self.packed.tensors.get(f"{number}.{norm}")) for norm in _NORMS},
        )

    def _linear(self, name: str, kind: str) -> Linear:
        matrix, sizes = self.packed.tensors[name], self.packed.sizes
        bias = _pointer(self.packed.tensors.get(f"{name}.bias"))
        width = len(matrix) * sizes.panel
        return Linear(matrix.data_ptr(), bias, sizes.depths()[kind], width)


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
