"""The small models in memory: one copy of the weights however many endpoints play on it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from servemu.catalog import CatalogModel
from servemu.clock import Clock
from servemu.loads import Loads
from servemu_engine.base import Embedder, Engine
from servemu_engine.errors import LoadFailed

Build = Callable[[CatalogModel], "Engine | Embedder"]
"""The engine that plays a registered model, not yet started. Raises `LoadFailed`."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many engines stay in memory."""

    models: int
    """Idle ones past this are dropped; those in use are not, and no load fails for it."""
    num_bytes: int | None
    """Of all weights together. A load past this fails if dropping the idle ones is not enough."""
    idle_seconds: float
    """A request lasts no longer than the request time-out, so an engine that nobody asked for
    during that time has nothing to do."""


@dataclass(slots=True)
class Resident:
    """An engine that is up, and when somebody last asked for it (monotonic seconds)."""

    engine: Engine | Embedder
    last_used: float


class Residents:
    """Starts engines on first use and drops idle ones, least recently used first.

    `load` may be called from any thread; the same model is loaded once.
    """

    def __init__(
        self, build: Build, clock: Clock, bounds: Bounds, loads: Loads | None = None
    ) -> None:
        self.loads = loads or Loads()
        """What `build` and `start` tell, and pulls."""
        self._build = build
        self._clock = clock
        self._bounds = bounds
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
            try:
                return self.find(model) or self._start(model)
            finally:
                self.loads.end(name)

    def _start(self, model: CatalogModel) -> Engine | Embedder:
        name = model.family.stand_in
        engine = self._build(model)
        self._make_room(name, engine.info.num_bytes)  # by its files, before they are read
        engine.start()
        try:
            self._make_room(name, engine.info.num_bytes, engine)
        except LoadFailed:
            engine.close()
            raise
        return engine

    @contextmanager
    def unused(self, name: str) -> Iterator[bool]:
        """Whether a model is neither in memory nor being loaded; nobody loads it meanwhile."""
        with self._lock:
            loading = self._loading.setdefault(name, threading.Lock())
        if not loading.acquire(blocking=False):
            yield False
            return
        try:
            yield name not in self._resident
        finally:
            loading.release()

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

    def _make_room(
        self, name: str, num_bytes: int, engine: Engine | Embedder | None = None
    ) -> None:
        """For one more, which takes it if it is up. Raises `LoadFailed`."""
        most = self._bounds.num_bytes
        with self._lock:
            dropped = list(self._take_idle(num_bytes))
            held = self._num_bytes()
            fits = most is None or held + num_bytes <= most
            if fits and engine is not None:
                self._resident[name] = Resident(engine, self._clock.monotonic())
        for old in dropped:
            old.close()
        if not fits:
            raise LoadFailed(
                f"model {name!r} takes {num_bytes} bytes, and models in use hold {held} of "
                f"max_resident_bytes = {most}"
            )

    def _take_idle(self, num_bytes: int) -> Iterator[Engine | Embedder]:
        now = self._clock.monotonic()
        by_age = sorted(self._resident.items(), key=lambda item: item[1].last_used)
        most = self._bounds.num_bytes
        for name, resident in by_age:
            fits = most is None or self._num_bytes() + num_bytes <= most
            if fits and len(self._resident) < self._bounds.models:
                return
            if now - resident.last_used > self._bounds.idle_seconds:
                del self._resident[name]
                yield resident.engine

    def _num_bytes(self) -> int:
        return sum(resident.engine.info.num_bytes for resident in self._resident.values())
