"""What the store notes about a model, in `servemu.json` beside its files."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from servemu_engine.errors import LoadFailed
from servemu_engine.weight_sources import Progress, Task, files_below, sha256_of

CONVERSION = 1
"""Raised when a conversion changes: folders made by an older one are made again."""
_MANIFEST = "servemu.json"
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}
_ITEM_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "int16": 2}


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A complete model of the store."""

    name: str
    path: Path
    source: str
    """`wheel:<package>==<version>`, `hub:<repository>`, `folder:<path>` or `gguf:<path>`."""
    dtype: str
    num_bytes: int
    task: Task


def folder_name(name: str) -> str:
    """Of a model's folder in the store."""
    return name.replace("/", "--")


def write_manifest(folder: Path, facts: dict[str, object], progress: Progress) -> None:
    """Last of all, once every file is there. Raises `LoadFailed` when they are no model."""
    paths = list(files_below(folder))
    total = sum(path.stat().st_size for path in paths)
    files: dict[str, dict[str, object]] = {}
    done = 0
    for path in paths:
        progress("check", done, total)
        size = path.stat().st_size
        files[path.relative_to(folder).as_posix()] = {"bytes": size, "sha256": sha256_of(path)}
        done += size
    manifest = {
        **facts,
        "conversion": CONVERSION,
        "architecture": architecture_of(folder),
        "dtype": dtype_of(folder),
        "files": files,
    }
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> StoredModel | None:
    """What the manifest says, if all its files are there at their full size."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        sizes = {name: file["bytes"] for name, file in manifest["files"].items()}
        complete = all((folder / name).stat().st_size == size for name, size in sizes.items())
        own_place = folder_name(manifest["name"]) == folder.name  # not one still being built
        if not complete or not own_place or manifest["conversion"] != CONVERSION:
            return None
        return StoredModel(
            manifest["name"],
            folder,
            manifest["source"],
            manifest["dtype"],
            sum(sizes.values()),
            manifest["task"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def architecture_of(folder: Path) -> str:
    """The class that `config.json` names, else its `model_type`. Raises `LoadFailed`."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return str((config.get("architectures") or [config["model_type"]])[0])
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise LoadFailed(
            f"config.json of the fetched model is missing or broken: {error}"
        ) from error


def dtype_of(folder: Path) -> str:
    """The type of the first tensor of numbers, from the header: 8 bytes of length, then JSON.

    Raises `LoadFailed`.
    """
    weights = next(iter(sorted(folder.glob("*.safetensors"))), None)
    if weights is None:
        raise LoadFailed("the fetched model has no *.safetensors file")
    try:
        with weights.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
        stored = [_DTYPES[tensor["dtype"]] for tensor in tensors if tensor["dtype"] in _DTYPES]
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LoadFailed(f"{weights.name} is not a safetensors file: {error}") from error
    return stored[0] if stored else "unknown"


def memory_of(folder: Path, dtype: str) -> int:
    """Bytes that the weights will take as `dtype`, from the sizes of the files; an estimate.

    `auto` counts as float32. 0 where it cannot be told.
    """
    try:
        stored = _ITEM_BYTES.get(dtype_of(folder), 4)
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    except (LoadFailed, OSError):
        return 0
    return size * _ITEM_BYTES.get(dtype, 4) // stored
