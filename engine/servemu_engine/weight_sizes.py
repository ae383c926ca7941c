"""How much memory weights will take, told from the headers of their files. Imports no torch."""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from servemu_engine.errors import LoadFailed
from servemu_engine.model_folder import architecture_of, is_generator

DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}
"""Numbers of safetensors, by what torch calls them."""
_HALF = ("bfloat16", "float16")
_WIDEST_PANEL = 32
"""Outputs of a matrix are filled up to whole panels: 16 wide with AVX2, 32 with AVX-512."""
INTEGERS = 576
"""Most of a row that share a scale, as in compiled_integers.h."""
_EMBEDDINGS = ("embed", "wte", "wpe")
_HEADS = ("lm_head.weight", "embed_out.weight")
_PROBED = 3
"""Rows of logits that the compiled step is checked with, as in compiled_check.py."""
_SMALL = 1 << 16
"""Bytes of tables that no file holds, such as the angles of positions."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of a file."""

    dtype: str
    """As of torch, or as of safetensors where it holds no numbers with a point."""
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        return math.prod(self.shape)


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """All tensors of a model, by name, in the order of the files. Raises `LoadFailed`."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise LoadFailed("the fetched model has no *.safetensors file")
    return {name: tensor for file in files for name, tensor in _header(file).items()}


def _header(file: Path) -> dict[str, Stored]:
    """8 bytes of length, then JSON."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(length))
        return {
            name: Stored(DTYPES.get(entry["dtype"], entry["dtype"]), tuple(entry["shape"]))
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LoadFailed(f"{file.name} is not a safetensors file: {error}") from error


def memory_of(folder: Path, dtype: str) -> int:
    """Bytes of the tensors as `dtype`, as transformers hold them; `auto` and int16 count as
    float32. 0 where it cannot be told."""
    item = 2 if dtype in _HALF else 4
    try:
        return item * sum(tensor.count for tensor in stored_tensors(folder).values())
    except (LoadFailed, OSError):
        return 0


def most_memory_of(folder: Path, dtype: str) -> int:
    """Bytes that an engine holds at most as `dtype`, packed or not; `auto` counts as float32.

    Packed, the head of a text generator is a copy of its own, where the files have one tensor for
    embedding and head too. 0 where it cannot be told.
    """
    try:
        tensors = stored_tensors(folder)
        generates = is_generator(architecture_of(folder))
    except (LoadFailed, OSError):
        return 0
    size = sum(_most(name, tensor, dtype) for name, tensor in tensors.items())
    embeddings = [t for name, t in tensors.items() if _is_embedding(name) and len(t.shape) == 2]
    if embeddings:
        words = max(embeddings, key=lambda tensor: tensor.count)
        size += _most_beside(tensors, words, dtype) if generates else _pooler(tensors, words)
    return size + _SMALL


def _most_beside(tensors: Mapping[str, Stored], words: Stored, dtype: str) -> int:
    """The head, if it is the embedding, and what a runner is checked with."""
    has_head = any(name.endswith(_HEADS) for name in tensors)
    return 4 * _PROBED * words.shape[0] + (0 if has_head else _most_of_matrix(words, dtype))


def _pooler(tensors: Mapping[str, Stored], words: Stored) -> int:
    """One that the files lack is made, and not used (`loading.load_encoder`)."""
    width = words.shape[1]
    return 0 if any("pooler" in name for name in tensors) else 4 * width * (width + 1)


def _most(name: str, tensor: Stored, dtype: str) -> int:
    if len(tensor.shape) == 2 and not _is_embedding(name):
        return _most_of_matrix(tensor, dtype)
    return tensor.count * (2 if dtype in _HALF and len(tensor.shape) > 1 else 4)


def _most_of_matrix(tensor: Stored, dtype: str) -> int:
    """Whichever side its outputs are on."""
    first, second = tensor.shape
    return max(_packed(first, second, dtype), _packed(second, first, dtype))


def _packed(outputs: int, depth: int, dtype: str) -> int:
    rows = -(-outputs // _WIDEST_PANEL) * _WIDEST_PANEL
    if dtype != "int16":
        return rows * depth * (2 if dtype in _HALF else 4)
    blocks = -(-depth // INTEGERS)
    return rows * blocks * (4 + 2 * (-(-depth // blocks) + 1))


def _is_embedding(name: str) -> bool:
    return any(word in name for word in _EMBEDDINGS)
