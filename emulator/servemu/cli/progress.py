"""How far models are, on stderr: bars in a terminal, elsewhere a line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from servemu.loads import Loads, Show, Stage

if TYPE_CHECKING:
    from rich import progress as drawn
    from rich.console import Console

    from servemu_engine.weight_sources import Progress

_FIRST_LINE = 2.0
_NEXT_LINE = 10.0
"""Seconds: of what is over sooner nothing is said."""


@contextmanager
def shown(name: str) -> Iterator["Progress"]:
    """Shows what is told of one model."""
    with display() as show:
        loads = Loads(show)
        try:
            yield loads.progress(name)
        finally:
            loads.end(name)


@contextmanager
def display() -> Iterator[Show]:
    """Shows what `Loads` tells."""
    if not sys.stderr.isatty():
        yield Lines(sys.stderr.write, time.monotonic)
        return
    bars = Bars(_stderr)
    try:
        yield bars
    finally:
        bars.close()


@dataclass(slots=True)
class _Told:
    begun: float
    next_at: float
    is_said: bool = False


class Lines:
    """Writes a line when a model takes more than 2 seconds, then each 10 seconds, then how
    long it took. `now`: seconds."""

    def __init__(self, write: Callable[[str], object], now: Callable[[], float]) -> None:
        self._write = write
        self._now = now
        self._told: dict[str, _Told] = {}

    def __call__(self, name: str, stage: Stage | None) -> None:
        now = self._now()
        told = self._told.setdefault(name, _Told(now, now + _FIRST_LINE))
        if stage is None:
            del self._told[name]
            if told.is_said:
                self._write(f"servemu: model {name}: {now - told.begun:.0f} s in all\n")
            return
        if now < told.next_at:
            return
        told.next_at, told.is_said = now + _NEXT_LINE, True
        percent = "" if stage.percent is None else f", {stage.percent} %"
        self._write(f"servemu: model {name}: {stage.words}{percent}\n")


class Bars:
    """A bar a model, which goes when the model is there. `console`: made for the first one, since
    its import takes a while."""

    def __init__(self, console: Callable[[], "Console"]) -> None:
        self._console = console
        self._bars: drawn.Progress | None = None
        self._tasks: dict[str, drawn.TaskID] = {}

    def __call__(self, name: str, stage: Stage | None) -> None:
        if stage is not None:
            self._update(name, stage)
            return
        task = self._tasks.pop(name, None)
        if self._bars is not None and task is not None:
            self._bars.remove_task(task)
        if not self._tasks:
            self.close()

    def close(self) -> None:
        """Gives the cursor back."""
        bars, self._bars = self._bars, None
        if bars is not None:
            bars.stop()

    def _update(self, name: str, stage: Stage) -> None:
        if self._bars is None:
            self._bars = _new_bars(self._console())
            self._bars.start()
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=None, doing=stage.words)
        number = self._tasks[name]
        task = next(task for task in self._bars.tasks if task.id == number)
        # `update` takes None for no change, and what was finished once for finished.
        task.total, task.finished_time = stage.total, None
        self._bars.update(number, doing=stage.words, completed=stage.done)


def _stderr() -> "Console":
    from rich.console import Console

    return Console(stderr=True)


def _new_bars(console: "Console") -> "drawn.Progress":
    from rich import progress as drawn
    from rich.table import Column

    whole = Column(no_wrap=True)
    cut = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    return drawn.Progress(
        drawn.SpinnerColumn(),
        drawn.TextColumn("{task.description}", markup=False, table_column=cut),
        drawn.TextColumn("{task.fields[doing]}", table_column=whole),
        drawn.BarColumn(bar_width=20),
        drawn.TaskProgressColumn(),
        drawn.TimeElapsedColumn(),
        console=console,
        transient=True,
        expand=True,
        redirect_stdout=False,  # the ready line is for scripts
    )
