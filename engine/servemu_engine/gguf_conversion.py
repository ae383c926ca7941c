"""A quantised GGUF file into a safetensors folder, in a process of its own.

Of its own, because it is half a minute of pure Python that would hold up everybody else in the
emulator's process, takes over a gigabyte, and draws progress bars that cannot be turned off.
"""

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from servemu_engine.errors import LoadFailed
from servemu_engine.loading import convert_gguf
from servemu_engine.weight_sources import Progress, no_progress


def convert(file: Path, folder: Path, progress: Progress = no_progress) -> None:
    """Write `folder` (float32) from `file`; blocks. Tells the tensors that are unpacked. Raises
    `LoadFailed`."""
    command = [sys.executable, "-P", "-m", "servemu_engine.gguf_conversion"]
    with (
        TemporaryFile() as errors,
        subprocess.Popen(
            [*command, str(file), str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as converting,
    ):
        assert converting.stdout is not None
        for line in converting.stdout:  # ends with the process
            done, total = map(int, line.split())
            progress("convert", done, total)
            if done == total:
                progress("convert", 0, None)  # the folder is written, nobody tells how far
        code = converting.wait()
        errors.seek(0)
        said = errors.read().decode("utf-8", "replace").strip().splitlines()
    if code == 0:
        return
    if code < 0 or not said:
        raise LoadFailed(
            f"{file.name} cannot be converted: the converting process was ended "
            f"({code}); is there enough memory?"
        )
    raise LoadFailed(said[-1])


def _main(file: Path, folder: Path) -> None:
    try:
        _read_once(file)
        convert_gguf(file, folder)
    except ImportError as error:
        sys.exit(f"{file.name} must be converted, which needs `servemu[models]`: {error}")
    except LoadFailed as error:
        sys.exit(" ".join(str(error).split()))


def _read_once(file: Path) -> None:
    """transformers parses the file three times and builds the tensor names anew for each tensor."""
    import gguf

    gguf.GGUFReader = functools.cache(gguf.GGUFReader)
    gguf.get_tensor_name_map = functools.cache(gguf.get_tensor_name_map)
    try:
        total = len(gguf.GGUFReader(str(file)).tensors)
        gguf.dequantize = _counted(gguf.dequantize, total)
    except (OSError, ValueError, LookupError) as error:
        raise LoadFailed(f"{file.name} cannot be converted: {error}") from error


def _counted(dequantize: Callable[..., Any], total: int) -> Callable[..., Any]:
    """Says on stdout how many of the tensors were unpacked: what `convert` reads."""
    done = 0

    def counted(*args: object) -> object:
        nonlocal done
        unpacked = dequantize(*args)
        done += 1
        sys.stdout.write(f"{done} {total}\n")
        sys.stdout.flush()
        return unpacked

    return counted


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
