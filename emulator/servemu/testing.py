"""An emulator in a thread, for tests: `with serve() as emulator: … emulator.url …`."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from servemu.app import create_app
from servemu.clock import Clock, SystemClock
from servemu.residents import Build
from servemu.server import Server, bind, url_of
from servemu.settings import Settings
from servemu.wiring import build_world
from servemu.world import World


@dataclass(frozen=True, slots=True)
class Emulator:
    """A running emulator and what is inside of it."""

    url: str
    world: World


class _ThreadServer(Server):
    """Signals belong to the main thread."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def serve(
    settings: Settings | None = None, clock: Clock | None = None, build: Build | None = None
) -> Iterator[Emulator]:
    """A real server on a free port of 127.0.0.1, up when this returns, stopped at the end.

    By default: the synthetic engine, a database in memory, the computer's clock.
    """
    settings = settings or Settings(engine="synthetic", port=0)
    world = build_world(settings, clock or SystemClock(), build)
    sock = bind("127.0.0.1", 0)
    up = threading.Event()
    server = _ThreadServer(create_app(world), on_ready=up.set)

    def run() -> None:
        try:
            server.run(sockets=[sock])
        finally:
            up.set()

    thread = threading.Thread(target=run, name="servemu", daemon=True)
    thread.start()
    up.wait()
    try:
        if not server.started:
            raise RuntimeError("the emulator did not start; its log says why")
        yield Emulator(url_of(sock), world)
    finally:
        server.should_exit = True
        thread.join()
        sock.close()
