"""The small models in memory: one copy of the weights however many endpoints play on it."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from servemu.catalog import CatalogModel
from servemu.clock import Clock
from servemu_engine.base import Embedder, Engine

Build = Callable[[CatalogModel], "Engine | Embedder"]
"""The engine that plays a registered model, not yet started. Raises `LoadFailed`."""


@dataclass(slots=True)
class Resident:
    """An engine that is up, and when somebody last asked for it (monotonic seconds)."""

    engine: Engine | Embedder
    last_used: float


class Residents:
    """Starts engines on first use and drops idle ones, least recently used first.

    `load` may be called from any thread; the same model is loaded once.
    """

    def __init__(self, build: Build, clock: Clock, *, limit: int, idle_seconds: float) -> None:
        """At most `limit` engines stay, but for those used within `idle_seconds`.

        A request lasts no longer than the request time-out, so an engine that nobody asked for
        during that time has nothing to do.
        """
        self._build = build
        self._clock = clock
        self._limit = limit
        self._idle_seconds = idle_seconds
        self._resident: dict[str, Resident] = {}
        self._lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}

    def find(self, model: CatalogModel) -> Engine | Embedder | None:
        """The engine, if it is up."""
        resident = self._resident.get(model.family.stand_in)
        if resident is None:
            return None
        resident.last_used = self._clock.monotonic()
        return resident.engine

    def load(self, model: CatalogModel) -> Engine | Embedder:
        """The engine, brought up if it must be. Blocks; raises `LoadFailed`."""
        name = model.family.stand_in
        with self._lock:
            loading = self._loading.setdefault(name, threading.Lock())
        with loading:
            engine = self.find(model)
            if engine is not None:
                return engine
            engine = self._build(model)
            engine.start()
            with self._lock:
                self._resident[name] = Resident(engine, self._clock.monotonic())
                dropped = list(self._take_idle(keep=name))
        for old in dropped:
            old.close()
        return engine

    def describe(self) -> list[dict[str, Any]]:
        """What is in memory, for `servemu models`."""
        return [
            {
                "name": name,
                "engine": info.kind,
                "architecture": info.architecture,
                "dtype": info.dtype,
                "device": info.device,
                "context_length": info.context_length,
                "parameters": info.num_parameters,
                "size": info.num_bytes,
                "runner": info.runner,
                "load_seconds": round(info.load_seconds, 3),
            }
            for name, resident in sorted(self._resident.items())
            for info in [resident.engine.info]
        ]

    def close(self) -> None:
        """Close all engines. Blocks until their threads have ended."""
        with self._lock:
            engines = [resident.engine for resident in self._resident.values()]
            self._resident.clear()
        for engine in engines:
            engine.close()

    def _take_idle(self, keep: str) -> Iterator[Engine | Embedder]:
        now = self._clock.monotonic()
        by_age = sorted(self._resident.items(), key=lambda item: item[1].last_used)
        for name, resident in by_age:
            if len(self._resident) <= self._limit:
                return
            if name != keep and now - resident.last_used > self._idle_seconds:
                del self._resident[name]
                yield resident.engine
