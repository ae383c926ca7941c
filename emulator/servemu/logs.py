"""Service and build logs of a served entity, as text, out of the endpoint's history and its counts.

Each line begins with the id of a replica in brackets (facts/control_plane §7). The history is what
is stored, so logs survive a restart; the counts of requests begin again with it.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from servemu.lifecycle.history import ABOUT_ENTITY, IMAGE, LOAD_FAILED, STARTED
from servemu.metering import Counts
from servemu_state.records import EntityState, Event

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Of the ids that Kubernetes gives to pods; the one known replica id looks like theirs."""
ID_LENGTH = 5
BUILD_FAILED = (
    "Build could not start due to an internal error - "
    "please contact your Databricks representative."
)
"""OBS, in the log of a failed build (facts/provisioned_throughput §4)."""
PID = 2
"""The process id in the example of the REST reference."""
FAILED = {EntityState.FAILED.value, EntityState.ABORTED.value}


@dataclass(frozen=True, slots=True)
class Container:
    """A served entity in one config version."""

    endpoint_id: str
    config_version: int
    entity: str

    @property
    def replica_id(self) -> str:
        """Stable over restarts. One for all replicas: they share one model in this process."""
        text = f"{self.endpoint_id}/{self.config_version}/{self.entity}"
        digest = hashlib.blake2b(text.encode(), digest_size=ID_LENGTH).digest()
        return "".join(ALPHABET[byte % len(ALPHABET)] for byte in digest)


def service_log(
    container: Container, history: Iterable[Event], counts: Counts | None
) -> str | None:
    """The log of the model server; None: it never had a container. `history` oldest first."""
    own = list(_about(container, history))
    if all(text != STARTED for _, text in own):
        return None
    lines = [
        _line(container, event.at, text, is_error=_is_error(event, text))
        for event, text in own
        if not text.startswith(IMAGE)
    ]
    if counts is not None and counts.statuses:
        lines.append(_line(container, counts.last_at, _requests(counts)))
    return "".join(lines)


def build_log(container: Container, history: Iterable[Event]) -> str | None:
    """The log of the image build: empty where no image was built; None: not that far yet.

    Pre-installed foundation models need no build, and the answer for them is a GUESS
    (facts/provisioned_throughput §4).
    """
    own = list(_about(container, history))
    built = [(event, text) for event, text in own if text.startswith(IMAGE)]
    if not built and all(text != STARTED for _, text in own):
        return None
    return "".join(
        _line(container, event.at, f"{text}\n{BUILD_FAILED}" if "failed" in text else text)
        for event, text in built
    )


def _about(container: Container, history: Iterable[Event]) -> Iterator[tuple[Event, str]]:
    for event in history:
        told = ABOUT_ENTITY.fullmatch(event.message)
        if told is not None and told["entity"] == container.entity:
            yield event, told["text"]


def _is_error(event: Event, text: str) -> bool:
    return event.status in FAILED or text.startswith(LOAD_FAILED)


def _requests(counts: Counts) -> str:
    statuses = sorted(counts.statuses.items())
    by_status = ", ".join(f"{status}: {number}" for status, number in statuses)
    return (
        f"Requests answered so far: {counts.statuses.total()} ({by_status}); "
        f"tokens in: {counts.tokens_in}, tokens out: {counts.tokens_out}"
    )


def _line(container: Container, at: float, text: str, *, is_error: bool = False) -> str:
    """In gunicorn's format, as the REST example has it; one line for each line of the text."""
    time = datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%d %H:%M:%S +0000")
    level = "ERROR" if is_error else "INFO"
    start = f"[{container.replica_id}] [{time}] [{PID}] [{level}] "
    return "".join(f"{start}{line}\n" for line in text.splitlines())
