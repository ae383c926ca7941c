"""A quantised GGUF file into a safetensors folder, in a process of its own.

Of its own, because it is half a minute of pure Python that would hold up everybody else in the
emulator's process, takes over a gigabyte, and draws progress bars that cannot be turned off.
"""

import functools
import subprocess
import sys
from pathlib import Path

from servemu_engine.errors import LoadFailed
from servemu_engine.loading import convert_gguf


def convert(file: Path, folder: Path) -> None:
    """Write `folder` (float32) from `file`; blocks. Raises `LoadFailed`."""
    command = [sys.executable, "-P", "-m", "servemu_engine.gguf_conversion"]
    done = subprocess.run(
        [*command, str(file), str(folder)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode == 0:
        return
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    if done.returncode < 0 or not said:
        raise LoadFailed(
            f"{file.name} cannot be converted: the converting process was ended "
            f"({done.returncode}); is there enough memory?"
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
        gguf.GGUFReader(str(file))
    except (OSError, ValueError, LookupError) as error:
        raise LoadFailed(f"{file.name} cannot be converted: {error}") from error


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
