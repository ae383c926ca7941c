"""The emulator and its stand-ins as processes of their own, which never outlive the bench."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

STOP_SECONDS = 15
"""A process that has not drained by then is killed."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers on 127.0.0.1."""

    pid: int
    port: int
    lines_at: tuple[float, ...]
    """When each line up to the ready line came, `time.perf_counter` seconds."""


def servemu_up(*flags: str) -> list[str]:
    """The command a user starts it with, on a free port, with the synthetic engine."""
    return [sys.executable, "-m", "servemu", "up", "--port", "0", "--engine", "synthetic", *flags]


def bench_module(name: str, *flags: str) -> list[str]:
    """A module of this folder as a process."""
    return [sys.executable, "-m", f"tests.bench.{name}", *flags]


@contextmanager
def running(command: Sequence[str], env: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Start a server, wait for its ready line, stop it at the end. Raises `RuntimeError`.

    A session of its own keeps Ctrl-C from it: the bench stops its servers in its own order.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=env,
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        line, lines_at = "", []
        while not line.startswith("servemu ready"):
            line = process.stdout.readline().strip()
            lines_at.append(time.perf_counter())
            if not line:
                raise RuntimeError(f"{command} did not start: exit code {process.wait()}")
        yield Running(process.pid, int(line.rpartition(":")[2]), tuple(lines_at))
    finally:
        process.stdin.close()  # a module of this folder stops at the end of its input
        _stop(process)
        process.stdout.close()


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def call(server: Running, method: str, path: str, body: str = "", *, token: str = "bench") -> bytes:
    """One request on a connection of its own. Raises `RuntimeError` unless it is answered 200."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=300)
    try:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        connection.request(method, path, body.encode(), headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {content.decode()}")
        return content
    finally:
        connection.close()


def settle(server: Running, *, token: str = "bench") -> None:
    """Let everything that was deployed be ready."""
    call(server, "POST", "/_emulator/clock/advance", '{"seconds": 86400}', token=token)


def resident_megabytes(pid: int) -> float | None:
    """Memory that the process holds; None where it cannot be read (no procfs)."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return round(int(line.split()[1]) / 1024, 1)


def cpu_seconds(pid: int) -> float | None:
    """Processor time that the process has used; None where it cannot be read (no procfs)."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return None
    user, system = stat.read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def end_with_input() -> None:
    """End this process like SIGTERM does once its input ends: also when the bench was killed."""

    def watch() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
