"""Models that are being fetched or loaded, and how far each is."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from servemu_engine.weight_sources import Phase, Progress

_WORDS: dict["Phase", str] = {
    "waiting": "waiting for another process",
    "download": "downloading",
    "copy": "copying",
    "convert": "converting",
    "check": "checking files",
    "import": "importing libraries",
    "read": "reading weights",
    "pack": "packing weights",
    "keep": "keeping packed weights",
    "map": "mapping packed weights",
    "try": "trying a step",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """How far one is."""

    phase: "Phase"
    done: int
    total: int | None
    """In what the phase counts: bytes, tensors or their numbers; None: not known."""

    @property
    def percent(self) -> int | None:
        return 100 * self.done // self.total if self.total else None

    @property
    def words(self) -> str:
        """What is done now."""
        return _WORDS[self.phase]


Show = Callable[[str, Stage | None], None]
"""Told of each step of a model, by its name, and of its end: None."""


class Loads:
    """Told by those who fetch and load, from any thread; asked by those who wait."""

    def __init__(self, show: Show = lambda name, stage: None) -> None:
        self._show = show
        self._stages: dict[str, Stage] = {}
        self._lock = threading.Lock()

    def progress(self, name: str) -> "Progress":
        """What tells how far a model is. Whoever takes it calls `end`."""
        return partial(self._tell, name)

    def end(self, name: str) -> None:
        """It is there, or failed."""
        with self._lock:
            if self._stages.pop(name, None) is not None:
                self._show(name, None)

    def describe(self) -> dict[str, dict[str, Any]]:
        """By name."""
        with self._lock:
            stages = dict(self._stages)
        return {
            name: {"phase": s.phase, "doing": s.words, "done": s.done, "total": s.total}
            for name, s in stages.items()
        }

    def _tell(self, name: str, phase: "Phase", done: int, total: int | None) -> None:
        stage = Stage(phase, done, total)
        with self._lock:
            self._stages[name] = stage
            self._show(name, stage)
