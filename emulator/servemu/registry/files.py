"""Files of model versions and of runs on disk: written beside and moved into place, never half."""

import errno
import hashlib
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from servemu.errors import (
    ArtifactNotFound,
    DiskFull,
    InvalidParameter,
    UploadNotFound,
)

MODELS = "models"
RUNS = "runs"
INCOMING = ".incoming"
LONGEST_PATH = 1024
LONGEST_PART = 255
"""Bytes of one part of a path: what file systems take."""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of the store and what is asked for in it."""

    folder: tuple[str, ...]
    """`("models", model id, version)` or `("runs", digest of the workspace)`."""
    path: PurePosixPath
    """Inside of the folder; `.` is the folder itself."""


@dataclass(slots=True)
class Upload:
    """An upload in parts that is under way."""

    place: Place
    folder: Path
    etags: dict[int, str] = field(default_factory=dict)
    is_completing: bool = False


class ArtifactFiles:
    """All files under `root`. Uploads that were under way when the process ended are dropped.

    Used by the event loop and by threads: what has to happen as one step holds the lock.
    """

    def __init__(self, root: Path, *, goes_with_process: bool = False) -> None:
        self._root = root
        self._goes_with_process = goes_with_process
        self._incoming = root / INCOMING
        self._uploads: dict[str, Upload] = {}
        self._writes: dict[str, Place] = {}
        self._lock = threading.Lock()
        shutil.rmtree(self._incoming, ignore_errors=True)

    def close(self) -> None:
        """Drop what is under way, and all files if they were not to stay."""
        shutil.rmtree(self._root if self._goes_with_process else self._incoming, ignore_errors=True)

    def folder_of(self, model_id: str, version: int) -> Path:
        """Where the files of a version are."""
        return self._root / MODELS / model_id / str(version)

    def find(self, place: Place) -> Path:
        """The file or folder. Raises `ArtifactNotFound`, `InvalidParameter`."""
        path = self._path(place)
        if not path.exists():
            raise ArtifactNotFound(str(place.path))
        return path

    async def write(self, place: Place, chunks: AsyncIterator[bytes]) -> None:
        """Store the file whole or not at all.

        Raises `InvalidParameter`, `DiskFull`, `ClientDisconnect`, and `UploadNotFound` where the
        folder was forgotten meanwhile.
        """
        target, token = self._path(place), uuid.uuid4().hex
        self._writes[token] = place
        try:
            with self._beside() as beside:
                await _receive(beside, chunks)
                with self._lock:
                    if token not in self._writes:
                        raise UploadNotFound
                    _move(beside, target)
        finally:
            self._writes.pop(token, None)

    def begin(self, place: Place) -> str:
        """Open an upload in parts; its token."""
        self._path(place)
        token = uuid.uuid4().hex
        folder = self._incoming / token
        with _disk():
            folder.mkdir(parents=True)
        self._uploads[token] = Upload(place, folder)
        return token

    def upload(self, token: str, place: Place | None = None) -> Upload:
        """Raises `UploadNotFound` for an unknown token, or one of another file."""
        upload = self._uploads.get(token)
        if upload is None or (place is not None and upload.place != place):
            raise UploadNotFound
        return upload

    async def write_part(self, token: str, number: int, chunks: AsyncIterator[bytes]) -> str:
        """Store a part; its ETag. A part that comes again replaces the first.

        Raises `UploadNotFound`, `DiskFull`.
        """
        upload = self.upload(token)
        with self._beside() as beside:
            etag = await _receive(beside, chunks)
            with self._lock:
                if self.upload(token).is_completing:  # or aborted meanwhile
                    raise UploadNotFound
                _move(beside, upload.folder / str(number))
                upload.etags[number] = etag
        return etag

    def complete(self, token: str, place: Place, parts: Sequence[tuple[int, str]]) -> None:
        """Put the parts together, in order of their numbers. Blocks.

        Raises `UploadNotFound`, `InvalidParameter` (a part that is missing or another one),
        `DiskFull`.
        """
        with self._lock:
            upload = self.upload(token, place)
            if upload.is_completing:
                raise UploadNotFound
            ordered = _check_parts(upload, parts)
            upload.is_completing = True
        try:
            with self._beside() as beside:
                _join([upload.folder / str(number) for number, _ in ordered], beside)
                with self._lock:
                    self.upload(token)  # its folder may have been forgotten meanwhile
                    _move(beside, self._path(place))
                    del self._uploads[token]
            shutil.rmtree(upload.folder, ignore_errors=True)
        finally:
            upload.is_completing = False

    def abort(self, token: str) -> None:
        """Drop the upload with its parts. Raises `UploadNotFound`, also while it is completed."""
        with self._lock:
            if self.upload(token).is_completing:
                raise UploadNotFound
            upload = self._uploads.pop(token)
        shutil.rmtree(upload.folder, ignore_errors=True)

    def delete(self, place: Place) -> None:
        """A file, no folder. Raises `ArtifactNotFound`."""
        path = self.find(place)
        if path.is_dir():
            raise ArtifactNotFound(str(place.path))
        path.unlink(missing_ok=True)

    def check_whole(self, model_id: str, version: int) -> None:
        """Raises `InvalidParameter` if an upload is open or there is no MLmodel file."""
        folder = (MODELS, model_id, str(version))
        if any(place.folder == folder for place in self._under_way()):
            raise InvalidParameter("An upload of this model version is not complete.")
        if not (self.folder_of(model_id, version) / "MLmodel").is_file():
            raise InvalidParameter("The model version has no MLmodel file.")

    def forget(self, model_id: str, version: int | None = None) -> None:
        """Remove the files of a version, or of all of them, and what is being uploaded to it."""
        self._forget((MODELS, model_id) if version is None else (MODELS, model_id, str(version)))
        if version is not None:
            shutil.rmtree(serving(self.folder_of(model_id, version)), ignore_errors=True)

    def forget_runs(self, workspace: str) -> None:
        """Remove the artifacts of all runs of the workspace."""
        self._forget(folder_of_runs(workspace))

    def _forget(self, folder: tuple[str, ...]) -> None:
        """Out of the way in one step, then removed. Uploads to it fail when they end."""
        doomed = self._incoming / uuid.uuid4().hex
        with self._lock:
            for token, place in list(self._writes.items()):
                if place.folder[: len(folder)] == folder:
                    del self._writes[token]
            for token, upload in list(self._uploads.items()):
                if upload.place.folder[: len(folder)] == folder:
                    del self._uploads[token]
                    if not upload.is_completing:
                        shutil.rmtree(upload.folder, ignore_errors=True)
            if not self._root.joinpath(*folder).exists():
                return
            self._incoming.mkdir(parents=True, exist_ok=True)
            os.replace(self._root.joinpath(*folder), doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def _under_way(self) -> list[Place]:
        with self._lock:
            uploads = [upload.place for upload in self._uploads.values()]
            return [*uploads, *self._writes.values()]

    def _path(self, place: Place) -> Path:
        return self._root.joinpath(*place.folder, *place.path.parts)

    @contextmanager
    def _beside(self) -> Iterator[Path]:
        """A new file outside of the store's folders, which is gone at the end if still there."""
        path = self._incoming / f"{uuid.uuid4().hex}.part"
        with _disk():
            self._incoming.mkdir(parents=True, exist_ok=True)
            try:
                yield path
            finally:
                path.unlink(missing_ok=True)


def folder_of_runs(workspace: str) -> tuple[str, str]:
    """By digest: a token may name any workspace, one with slashes too."""
    return RUNS, hashlib.blake2b(workspace.encode(), digest_size=16).hexdigest()


def serving(folder: Path) -> Path:
    """Beside a version's files: them as transformers wants them."""
    return folder.with_name(f"{folder.name}.serving")


def open_artifacts(root: Path | None, database: str) -> ArtifactFiles:
    """The store of a database: where it is told to be, or beside the file."""
    if root is not None:
        return ArtifactFiles(root.expanduser())
    if database == ":memory:" or "://" in database:
        return ArtifactFiles(Path(tempfile.mkdtemp(prefix="servemu-")), goes_with_process=True)
    return ArtifactFiles(Path(f"{Path(database).expanduser()}.artifacts"))


def check_path(text: str) -> PurePosixPath:
    """A relative path that stays where it is. Raises `InvalidParameter`."""
    parts = text.split("/")
    if any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in parts):
        raise InvalidParameter(f"Invalid path: {ascii(text[:200])}")
    if len(text.encode()) > LONGEST_PATH or any(len(p.encode()) > LONGEST_PART for p in parts):
        raise InvalidParameter(
            f"The path is longer than {LONGEST_PATH} bytes, or a part of it than "
            f"{LONGEST_PART}: {ascii(text[:60])}…"
        )
    return PurePosixPath(*parts)


async def _receive(path: Path, chunks: AsyncIterator[bytes]) -> str:
    """Write the chunks; the MD5 of all, as object stores make their ETags."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("wb", buffering=1 << 20) as file:
        async for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _check_parts(upload: Upload, parts: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """The parts in order. Raises `InvalidParameter`."""
    ordered = sorted(parts)
    for number, etag in ordered:
        if upload.etags.get(number) != etag.strip('"'):
            raise InvalidParameter(f"Part {number} was not uploaded with ETag {ascii(etag[:100])}.")
    if len(ordered) != len(upload.etags):
        raise InvalidParameter(f"{len(upload.etags)} parts were uploaded, {len(ordered)} named.")
    return ordered


def _join(parts: Sequence[Path], target: Path) -> None:
    with target.open("wb") as file:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, file, 1 << 20)


def _move(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise InvalidParameter(f"A file and a folder have the same name: {target.name}") from None


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(error.strerror or "the disk is full") from error
        raise
