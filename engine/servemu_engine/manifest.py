"""What the store notes about a model, in `servemu.json` beside its files."""

import json
from dataclasses import dataclass
from pathlib import Path

from servemu_engine.model_folder import architecture_of
from servemu_engine.weight_sizes import DTYPES, stored_tensors
from servemu_engine.weight_sources import Progress, Task, files_below, sha256_of

CONVERSION = 1
"""Raised when a conversion changes: folders made by an older one are made again."""
_MANIFEST = "servemu.json"


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


def dtype_of(folder: Path) -> str:
    """The type of the first tensor of numbers with a point. Raises `LoadFailed`."""
    stored = [tensor.dtype for tensor in stored_tensors(folder).values()]
    return next((dtype for dtype in stored if dtype in DTYPES.values()), "unknown")
