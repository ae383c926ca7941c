"""The compiled step as a shared library: built by this machine's C compiler, kept in a folder."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path

from servemu_engine.errors import LoadFailed

_FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC", "-pthread")
"""Not -ffast-math: it may reorder sums, and the numbers of a token would depend on its batch."""
_SOURCES = (
    *("compiled_step.c", "compiled_vectors.h", "compiled_integers.h", "compiled_products.h"),
    *("compiled_linear.h", "compiled_attention.h"),
)
_PATIENCE = 120


class NotCompiled(LoadFailed):
    """Why there is no compiled step for this model here; the transformers runner serves any."""


def compiled_library(folder: Path) -> ctypes.CDLL:
    """The library, compiled into `folder` if it is not there yet (1 to 3 s). Raises `NotCompiled`.

    A file is good for one text of the sources, one compiler, one kind of CPU: its name is their
    hash.
    """
    texts = sources()
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise NotCompiled("there is no C compiler ($CC, or cc in $PATH)")
    key = "\0".join((*texts.values(), *_FLAGS, compiler, *_cpu()))
    library = folder / f"step-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    try:
        if not library.is_file():
            _compile(compiler, texts, library)
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise NotCompiled(f"the compiled step cannot be kept or opened: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise NotCompiled(f"{compiler} took more than {_PATIENCE} s") from error


def panel_width(library: ctypes.CDLL) -> int:
    """Outputs of a matrix that are computed side by side."""
    library.panel_width.restype = ctypes.c_int64
    return int(library.panel_width())


def sources() -> dict[str, str]:
    """The text of what is compiled, by name."""
    package = files("servemu_engine")
    return {name: package.joinpath(name).read_text(encoding="utf-8") for name in _SOURCES}


def _compile(compiler: str, texts: dict[str, str], library: Path) -> None:
    """Into a file of its own first: another process may do the same."""
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        built = Path(folder) / "step.so"
        for name, source in texts.items():
            (Path(folder) / name).write_text(source, encoding="utf-8")
        done = subprocess.run(
            [compiler, *_FLAGS, str(Path(folder) / _SOURCES[0]), "-o", str(built), "-lm", "-ldl"],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
        )
        if done.returncode != 0:
            first = next(iter(done.stderr.strip().splitlines()), "it said nothing")
            raise NotCompiled(f"{compiler} failed: {first}")
        built.replace(library)


def _cpu() -> tuple[str, ...]:
    """What -march=native looks at, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    told = {line for line in lines if line.split("\t")[0] in ("model name", "flags", "Features")}
    named = () if told else (platform.processor(),)  # which starts a process on some systems
    return (platform.system(), platform.machine(), *named, *sorted(told))
