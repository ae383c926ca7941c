"""How long an engine takes from nothing to its first answer: parts of a process of its own."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.bench.processes import ROOT, bench_module
from tests.bench.record import Loading
from tests.bench.report import Cell, Table, significant

STARTS = 3
NOTES = (
    "Medians of fresh processes with bytecode, as an installed package has it; the interpreter's "
    "own start not counted.",
    "Start: load and check of the compiled step, library built and weights packed before; the "
    "first one also imports what is imported late.",
)


def measure(folder: Path) -> list[Loading]:
    """Of the engine as users get it (float32 on CPU). One process goes first, uncounted."""
    return [_once(folder) for _ in range(STARTS + 1)][1:]


def _once(folder: Path) -> Loading:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    ran = subprocess.run(
        bench_module("cold_start", str(folder)), cwd=ROOT, env=env, stdout=subprocess.PIPE
    )
    ran.check_returncode()
    return Loading(**json.loads(ran.stdout))


def table(loadings: Sequence[Loading]) -> Table:
    """Medians of each part."""
    rows: list[tuple[Cell, ...]] = [
        ("import torch", _middle([one.torch for one in loadings])),
        ("import the engine", _middle([one.engine for one in loadings])),
        ("start, the first in its process", _middle([one.start for one in loadings])),
        ("start, the second", _middle([one.again for one in loadings])),
        ("imports and first start", _middle([one.total for one in loadings])),
        ("plain from_pretrained", _middle([one.plain for one in loadings])),
        (
            "start where nothing is packed yet",
            _middle([one.packing for one in loadings if one.packing is not None]),
        ),
    ]
    return Table("Engine: from nothing to loaded", ("part", "s"), rows, NOTES)


def _middle(seconds: Sequence[float]) -> Cell:
    return significant(median(seconds)) if seconds else None
