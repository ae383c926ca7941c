"""Packed models in files: written once, read at every later start.

A file is safetensors; sizes, facts and a sum of its bytes are in its metadata.
"""

import errno
import json
import mmap
import os
import shutil
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any, cast

import torch
from torch import Tensor
from typing_extensions import Buffer

from servemu_engine.compiled_files import from_elsewhere, outdated
from servemu_engine.compiled_packing import PackedModel, Sizes
from servemu_engine.errors import LoadFailed
from servemu_engine.loading import ModelFacts
from servemu_engine.weight_sources import Progress, no_progress

Kept = tuple[PackedModel, ModelFacts]
"""What a file holds."""

_DTYPES = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "I16": torch.int16,
    "U8": torch.uint8,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_POPULATE_READ = 22
"""MADV_POPULATE_READ of Linux."""
_PIECE = 128 << 20
"""Bytes of a file that are read without a word, in which no other thread of Python runs."""
_ABANDONED = 3600
"""Seconds after which a half-written file is nobody's."""


class PackedFileBroken(LoadFailed):
    """It is not what was written: made again, by whoever finds it."""


def write_packed(file: Path, kept: Kept, model: Path, progress: Progress = no_progress) -> None:
    """Whole or not at all; older ones of the same model go, and those of folders that are gone.
    Raises `OSError`.

    `model`: the folder that it was packed from; its files decide who may read this one.
    """
    packed, facts = kept
    file.parent.mkdir(parents=True, exist_ok=True)
    said = {
        "sizes": asdict(packed.sizes),
        "facts": asdict(facts),
        "folder": str(model.absolute()),
    }
    tensors = sorted(packed.tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))
    header = _header(dict(tensors), said, 0)
    if shutil.disk_usage(file.parent).free < packed.num_bytes + len(header):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
    with NamedTemporaryFile(dir=file.parent, prefix=".packing-", delete=False) as written:
        temporary = Path(written.name)
        try:
            written.write(header)
            for _, tensor in tensors:
                progress("keep", written.tell() - len(header), packed.num_bytes)
                written.write(_memory(tensor))
            written.flush()
            data = _mapped(written.fileno(), written.tell())[len(header) :]
            written.seek(0)
            written.write(_header(dict(tensors), said, _sum(data)))
            written.flush()
            temporary.chmod((model / "config.json").stat().st_mode & 0o666)
            temporary.replace(file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    for old in (*outdated(file), *_abandoned(file.parent), *_orphans(file.parent)):
        old.unlink(missing_ok=True)


def read_packed(file: Path, progress: Progress = no_progress) -> Kept:
    """Mapped, not copied. Raises `OSError`, such as `FileNotFoundError`, `PackedFileBroken`."""
    try:
        with file.open("rb", buffering=0) as opened:
            size, (header, told) = os.fstat(opened.fileno()).st_size, _told(opened)
            begin, end = opened.tell(), max(e["data_offsets"][1] for e in header.values())
            if size != begin + end:
                raise PackedFileBroken(f"{file.name} has {size} bytes, not {begin + end}")
            data = _mapped(opened.fileno(), size, progress)[begin:]
        if told["sum"] != f"{_sum(data):020}":
            raise PackedFileBroken(f"{file.name} holds other bytes than were written")
        tensors = {name: _tensor(data, entry) for name, entry in header.items()}
        sizes = Sizes(**{**told["sizes"], "windows": tuple(told["sizes"]["windows"])})
        facts = ModelFacts(**{**told["facts"], "end_ids": tuple(told["facts"]["end_ids"])})
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise PackedFileBroken(f"{file.name} is broken: {error}") from error
    return PackedModel(sizes, tensors), facts


def _told(opened: IO[bytes]) -> tuple[dict[str, dict[str, list[int]]], dict[str, Any]]:
    """The entries of the tensors, and what we said of them. Raises what broken files cause."""
    (length,) = struct.unpack("<Q", opened.read(8))
    if length > os.fstat(opened.fileno()).st_size:
        raise ValueError("its header is longer than the file")
    header = json.loads(opened.read(length))
    return header, json.loads(header.pop("__metadata__")["servemu"])


def _orphans(folder: Path) -> Iterator[Path]:
    """Of folders that are not in the store, such as uploaded models, and not there any more."""
    for file in from_elsewhere(folder):
        with suppress(OSError, ValueError, KeyError, struct.error), file.open("rb") as opened:
            if not Path(_told(opened)[1]["folder"]).is_dir():
                yield file


def _header(tensors: dict[str, Tensor], said: dict[str, Any], total: int) -> bytes:
    """Of tensors in this order, wider numbers first; as long for any sum. Its length comes first,
    blanks at its end let the numbers begin a page."""
    told = json.dumps({**said, "sum": f"{total:020}"})
    header: dict[str, object] = {"__metadata__": {"servemu": told}}
    begin = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, begin + tensor.nbytes],
        }
        begin += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % mmap.PAGESIZE)
    return struct.pack("<Q", len(text)) + text


def _tensor(data: Tensor, entry: dict[str, list[int]]) -> Tensor:
    begin, end = entry["data_offsets"]
    return data[begin:end].view(_DTYPES[str(entry["dtype"])]).view(entry["shape"])


def _mapped(file: int, size: int, progress: Progress = no_progress) -> Tensor:
    """[bytes]. A page of it is the system's own until it is written to, which nobody does."""
    private = {"prot": mmap.PROT_READ | mmap.PROT_WRITE, "flags": mmap.MAP_PRIVATE}
    pages = mmap.mmap(file, size, **private)
    with suppress(OSError):  # before Linux 5.14 pages come one by one
        for begin in range(0, size, _PIECE):
            progress("map", begin, size)
            pages.madvise(_POPULATE_READ, begin, min(_PIECE, size - begin))
    return torch.frombuffer(pages, dtype=torch.uint8)


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def _memory(tensor: Tensor) -> memoryview:
    return memoryview(cast(Buffer, _bytes(tensor).numpy()))


def _sum(data: Tensor) -> int:
    """Of bytes, eight at a time: another one for any change of one of them. In one operation: each
    costs a turn at the interpreter, which the tokenizer is busy with."""
    whole = len(data) // 8 * 8
    words = data[:whole].view(torch.int64).sum().item() + 31 * data[whole:].sum().item()
    return int(words) % (1 << 64)


def _abandoned(folder: Path) -> Iterator[Path]:
    """Of a process that was ended while it wrote."""
    before = time.time() - _ABANDONED
    for path in folder.glob(".packing-*"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < before:
                yield path
