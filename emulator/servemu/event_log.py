"""The event log of a workspace, and its hash: equal for two runs of the same seed.

In it: the history of its endpoints, and the requests that change or query something, with what
came of each. Times count from the workspace's first second; what the machine's speed decides
(how long a load took) is left out. On a real clock times differ from run to run, so the hash is
worth comparing with `--clock paused`.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence

from servemu.entry import Entry
from servemu.lifecycle.history import TRACE
from servemu_state.records import Endpoint, Event

READS = ("GET", "HEAD")
SCALED = re.compile(r": (?:Scaled (?:up|down) from [0-9]|Scale-up stops at )")
"""Load is measured in real time, so replicas follow the machine's speed."""
LOADED_IN = re.compile(r"Model loaded in [0-9.]+ s")


def lines(
    began: float, history: Sequence[tuple[Endpoint, Event]], entries: Iterable[Entry]
) -> list[str]:
    """One line an event, in an order that parallel requests cannot change.

    `began`: the workspace's first second, on its own clock.
    """
    told = [
        _of_event(began, endpoint, event)
        for endpoint, event in history
        if not SCALED.search(event.message)
    ]
    told += [_of_request(began, entry) for entry in entries if entry.method not in READS]
    return [line for _, line in sorted(told)]


def digest(log: Iterable[str]) -> str:
    """64 hex digits."""
    return hashlib.sha256("\n".join(log).encode()).hexdigest()


def _of_event(began: float, endpoint: Endpoint, event: Event) -> tuple[float, str]:
    at = round(event.at - began, 3)
    message = LOADED_IN.sub("Model loaded in … s", event.message.partition(TRACE)[0])
    parts = (endpoint.name, endpoint.id, event.type, event.status, event.config_version, message)
    return at, _line(at, "event", *parts)


def _of_request(began: float, entry: Entry) -> tuple[float, str]:
    at = round(entry.at - began, 3)
    asked = (entry.operation, entry.endpoint, entry.method, entry.path, entry.body)
    came = (entry.request_id, entry.status, entry.error_code, entry.fault, entry.entity)
    return at, _line(at, "request", *asked, *came, entry.tokens_in, entry.tokens_out)


def _line(at: float, *parts: object) -> str:
    return "\t".join([f"{at:.3f}", *(str(part) for part in parts)])
