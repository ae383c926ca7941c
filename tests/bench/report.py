"""Tables of measured figures: on the terminal, and as JSON for a machine."""

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table as RichTable

Cell = str | int | float | None
"""None: not measured here."""


@dataclass(frozen=True, slots=True)
class Table:
    """Figures with their units in the column names."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much is measured."""

    dtype: str
    """Of the real engine and its peer: float32 or bfloat16."""
    rounds: int
    """Repetitions; the median is shown."""
    seconds: float
    """Length of one throughput window."""
    record: Path
    """What is measured of the engine is added to this file; its tables are of all in it."""
    quick: bool = False
    """Of the engine: fewer peers, 8 and 32 streams only."""
    streams: tuple[str, ...] = ()
    """Workloads of the engine; none: all of them."""
    engines: tuple[str, ...] = ()
    """That race; none: all of them."""
    plot: Path | None = None
    """Where the engine's picture goes."""


def machine() -> dict[str, Cell]:
    """What the figures were measured on."""
    return {
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def show(console: Console, table: Table) -> None:
    """One table with its notes under it."""
    shown = RichTable(title=table.title, title_justify="left")
    for number, name in enumerate(table.columns):
        shown.add_column(name, justify="left" if number == 0 else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*map(_text, row))
    console.print(shown)
    for note in table.notes:
        console.print(f"  {note}", style="dim", highlight=False)
    console.print()


def as_json(table: Table) -> dict[str, object]:
    """Rows as objects, keyed by the columns."""
    fields = asdict(table)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return {"title": table.title, "rows": rows, "notes": list(fields["notes"])}


def middle(values: Sequence[float]) -> float:
    """The median, rounded to three digits that mean something."""
    return significant(median(values))


def significant(value: float) -> float:
    """Three significant digits; whole above 100."""
    return float(f"{value:.3g}") if abs(value) < 100 else float(round(value))


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:g}"
    return f"{cell:,}" if isinstance(cell, int) else cell
