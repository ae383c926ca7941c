"""The emulator a scenario is played against, over HTTP alone."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx

from servemu.scenarios.schema import Load

Json = dict[str, Any]

ENDPOINTS = "/api/2.0/serving-endpoints"
FAULTS = "/_emulator/faults"
ARRIVALS = "scenario-arrivals"
ARRIVE_SECONDS = 10.0
"""Real ones, in which a request is expected to reach an emulator."""
LOST = "lost"
"""Instead of a status: no answer came."""


class EmulatorGone(Exception):
    """It does not answer, or refuses what it never should; the text says what."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request came to."""

    status: int | str
    body: Json
    entity: str = ""

    @property
    def error_code(self) -> str:
        return str(self.body.get("error_code", ""))


class Emulator:
    """One workspace of a running emulator."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self.speedup: float = self.admin("GET", "/_emulator/clock")["speedup"]

    def admin(self, method: str, path: str, body: Json | None = None) -> Json:
        """One of the emulator's own routes. Raises `EmulatorGone`."""
        answer = self.ask(method, path, body)
        if answer.status != 200:
            raise EmulatorGone(f"{method} {path}: {answer.status} {answer.body.get('message', '')}")
        return answer.body

    def ask(self, method: str, path: str, body: Json | None = None) -> Answer:
        """Raises `EmulatorGone` when nobody listens; a broken connection is the status `lost`."""
        try:
            got = self._client.request(method, path, json=body)
        except (httpx.ConnectError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise EmulatorGone(
                f"no emulator answers at {self._client.base_url} ({error})"
            ) from None
        except httpx.HTTPError:
            return Answer(LOST, {})
        try:
            said = got.json()
        except ValueError:
            said = {"message": got.text}
        said = said if isinstance(said, dict) else {"message": got.text}
        return Answer(got.status_code, said, got.headers.get("served-model-name", ""))

    def advance(self, duration: timedelta) -> None:
        """By so much of the real service's time; what falls due has happened then."""
        seconds = duration.total_seconds() / self.speedup
        self.admin("POST", "/_emulator/clock/advance", {"seconds": seconds})

    def query(self, load: Load) -> Answer:
        messages = [{"role": "user", "content": load.prompt}]
        body = {"messages": messages, "max_tokens": load.max_tokens}
        return self.ask("POST", f"/serving-endpoints/{load.endpoint}/invocations", body)

    def play(self, load: Load) -> list[Answer]:
        """All queries of the load."""
        with ThreadPoolExecutor(load.requests if load.held_for else load.concurrency) as pool:
            if load.held_for is not None:
                return self._hold(load, load.held_for, lambda: pool.submit(self.query, load))
            return list(self._spread(load, pool))

    def _spread(self, load: Load, pool: ThreadPoolExecutor) -> Iterator[Answer]:
        """Side by side, as many as `concurrency`; the clock is moved behind each such batch."""
        sizes = [
            min(load.concurrency, load.requests - first)
            for first in range(0, load.requests, load.concurrency)
        ]
        for size in sizes:
            yield from pool.map(self.query, [load] * size)
            if load.over is not None:
                self.advance(load.over / len(sizes))

    def _hold(
        self, load: Load, duration: timedelta, send: "Callable[[], Future[Answer]]"
    ) -> list[Answer]:
        """They come one after another, and the clock is moved once all are in.

        A rule that never fires counts them: nothing else tells that a request waits inside.
        """
        match = {"operation": "invocations", "endpoint": load.endpoint}
        effect = {"type": "delay", "seconds": 1}
        rule = {"id": ARRIVALS, "match": match, "when": {"probability": 0}, "effect": effect}
        self.admin("POST", FAULTS, rule)
        futures = []
        try:
            for number in range(1, load.requests + 1):
                futures.append(send())
                self._wait_for_arrivals(number)
        finally:
            self.admin("DELETE", f"{FAULTS}/{ARRIVALS}")
        self.advance(duration)
        return [future.result() for future in futures]

    def _wait_for_arrivals(self, number: int) -> None:
        deadline = time.monotonic() + ARRIVE_SECONDS
        while self.admin("GET", f"{FAULTS}/{ARRIVALS}")["matched"] < number:
            if time.monotonic() > deadline:
                raise EmulatorGone(f"request {number} of the load did not arrive")
            time.sleep(0.002)


def count(values: Iterator[object]) -> Counter[str]:
    """How often each came, but for empty ones."""
    return Counter(str(value) for value in values if value)
