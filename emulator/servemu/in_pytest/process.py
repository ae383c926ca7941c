"""One emulator for a whole pytest run: whoever needs it first starts it, all workers share it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

STATE = "servemu.json"
LOG = "servemu.log"
LOCK = "servemu.lock"
READY = "servemu ready "
STOP_SECONDS = 10.0

_started: list[subprocess.Popen[str]] = []
"""Held until the interpreter ends, as they may outlive a worker."""


class EmulatorDidNotStart(Exception):
    """With what it wrote."""


def shared(folder: Path, owner: int, engine: str) -> str:
    """The URL of the run's emulator. `folder`: the same for all workers. `owner`: the process id
    of the run; the emulator ends with it. Raises `EmulatorDidNotStart`.
    """
    from filelock import FileLock

    state = folder / STATE
    with FileLock(folder / LOCK):
        if not state.exists():
            url, process_id = _start(folder, owner, engine)
            state.write_text(json.dumps({"url": url, "pid": process_id}))
        known: str = json.loads(state.read_text())["url"]
        return known


def stop(folder: Path) -> None:
    """Ends the run's emulator, if one was started; returns when nobody listens any more."""
    state = folder / STATE
    if not state.exists():
        return
    known = json.loads(state.read_text())
    state.unlink()
    try:
        os.kill(known["pid"], signal.SIGTERM)
    except ProcessLookupError:
        return
    where = urlsplit(known["url"])
    deadline = time.monotonic() + STOP_SECONDS
    while _listens(where.hostname or "", where.port or 0) and time.monotonic() < deadline:
        time.sleep(0.02)
    for process in [p for p in _started if p.pid == known["pid"]]:
        process.wait(STOP_SECONDS)
        _started.remove(process)


def _start(folder: Path, owner: int, engine: str) -> tuple[str, int]:
    command = [sys.executable, "-m", "servemu.in_pytest.attended", str(owner), "up"]
    command += ["--port", "0", "--host", "127.0.0.1", "--database", ":memory:", "--engine", engine]
    with (folder / LOG).open("w") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,  # Ctrl-C is pytest's: teardowns still need the emulator
        )
    assert process.stdout is not None
    with process.stdout as said:
        line = next((line for line in said if line.startswith(READY)), None)
    if line is None:
        process.wait(STOP_SECONDS)
        raise EmulatorDidNotStart((folder / LOG).read_text().strip() or "it said nothing")
    _started.append(process)
    return line.removeprefix(READY).strip(), process.pid


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0
