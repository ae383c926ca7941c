"""One process from nothing to a loaded model: `python -m tests.bench.cold_start FOLDER`.

Prints the fields of `record.Loading` as JSON. Imports nothing early: that is what is measured.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory


def main() -> None:
    folder = Path(sys.argv[1])
    steps = {
        "torch": _torch,
        "engine": _engine,
        "start": lambda: _start(folder),
        "again": lambda: _start(folder),
        "plain": lambda: _plain(folder),
        "packing": lambda: _pack(folder),
    }
    json.dump({name: _seconds(step) for name, step in steps.items()}, sys.stdout)


def _seconds(step: Callable[[], object]) -> float:
    began = time.perf_counter()
    kept = step()
    seconds = time.perf_counter() - began
    if hasattr(kept, "close"):
        kept.close()
    return round(seconds, 4)


def _torch() -> object:
    import torch

    return torch.__version__


def _engine() -> object:
    from servemu_engine import local

    return local


def _start(folder: Path) -> object:
    from servemu_engine.local import LocalEngine, LocalOptions

    engine = LocalEngine(folder, folder.name, LocalOptions())
    engine.start()
    return engine


def _pack(folder: Path) -> object:
    from servemu_engine.compiled_files import FOLDER
    from servemu_engine.local import LocalEngine, LocalOptions

    with TemporaryDirectory(dir=folder.parent) as compiled:
        for library in (folder.parent / FOLDER).glob("*.so"):
            shutil.copy(library, compiled)
        engine = LocalEngine(folder, folder.name, LocalOptions(compiled=Path(compiled)))
        engine.start()
        return engine


def _plain(folder: Path) -> object:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


if __name__ == "__main__":
    main()
