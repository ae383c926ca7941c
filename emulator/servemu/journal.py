"""What was asked and answered: a ring of entries for each workspace, in memory.

Neither bodies nor tokens are kept, and of a query string only names and numbers.
"""

import asyncio
import re
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from servemu.clock import Clock
from servemu.operation import endpoint_of, operation_of
from servemu.workspace import Workspaces

RINGS = 10
"""So many full rings are kept over all workspaces; then the one not used for longest goes."""
RETRY_SECONDS = 120.0
"""The same request again within this time after a failure is a retry: openai and databricks-sdk
wait no longer than that between two (facts/control_plane §6, facts/data_plane §6)."""
NUMBER = re.compile(r"[0-9]{1,12}")


@dataclass(slots=True)
class Entry:
    """One request and its answer. Filled while it runs, unchanged from then on."""

    started: float
    """Monotonic seconds, as `ended` and the two `…_at` of the workspace's clock below."""
    real_time: float
    """Seconds since the epoch when it came, on the machine's clock."""
    method: str
    path: str
    query: str
    user_agent: str
    client_retry: int | None
    """Which retry the client says that this is (openai's `x-stainless-retry-count`)."""
    ended: float = 0.0
    at: float = 0.0
    ended_at: float = 0.0
    number: int = 0
    """Counts the entries of the workspace, from 1."""
    request_id: str = ""
    user: str = ""
    endpoint: str = ""
    entity: str = ""
    """The served entity that answered."""
    status: int | None = None
    """None: no answer was sent, or not to its end."""
    error_code: str = ""
    state: str = ""
    """What the answer showed of the endpoint: `READY UPDATE_FAILED`."""
    fault: str | None = None
    """The rule that was injected."""
    fault_phase: str = ""
    retry_after: str = ""
    should_retry: str = ""
    """The header `x-should-retry` that was sent."""
    body: int = 0
    """CRC-32 of the request's body: two of the same call have the same."""
    bytes_in: int = 0
    bytes_out: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    first_byte: float | None = None
    """Monotonic seconds, of a stream's first event."""

    @property
    def operation(self) -> str:
        return operation_of(self.method, self.path)

    @property
    def client(self) -> tuple[str, str]:
        """Who asks: the user, and what they ask with."""
        return self.user, self.user_agent

    @property
    def call(self) -> tuple[object, ...]:
        """The same for the same request sent again."""
        return (*self.client, self.method, self.path, self.body)

    @property
    def failed(self) -> bool:
        """It was refused, or its answer was lost."""
        return self.status is None or self.status >= 400


@dataclass(slots=True)
class Ring:
    """The last entries of one workspace."""

    entries: deque[Entry]
    since: float
    """Monotonic seconds: what began before belongs to the time before a reset."""
    last: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Journal:
    """The entries of all workspaces, oldest first. Belongs to the event loop."""

    def __init__(self, workspaces: Workspaces, clock: Clock, size: int) -> None:
        """At most `size` entries of a workspace are kept."""
        self.clock = clock
        self._workspaces = workspaces
        self._size = size
        self._rings: OrderedDict[str, Ring] = OrderedDict()
        self._total = 0

    def entries(self, workspace: str) -> list[Entry]:
        ring = self._rings.get(workspace)
        return [] if ring is None else list(ring.entries)

    def last(self, workspace: str) -> int:
        """The number of the newest entry, 0 without one."""
        ring = self._rings.get(workspace)
        return 0 if ring is None else ring.last

    def record(self, workspace: str, entry: Entry) -> None:
        """The request is over."""
        entry.ended = self.clock.monotonic()
        ring = self._rings.get(workspace) or self._open(workspace, entry.started)
        if entry.started < ring.since:
            return
        offset = self._workspaces.open(workspace).clock_offset
        entry.at = entry.real_time + offset
        entry.ended_at = self.clock.now() + offset
        entry.number = ring.last = ring.last + 1
        self._total += len(ring.entries) < self._size
        ring.entries.append(entry)
        ring.changed.set()
        self._rings.move_to_end(workspace)
        if self._total > RINGS * self._size:
            self._total -= len(self._rings.popitem(last=False)[1].entries)

    def forget(self, workspace: str) -> None:
        """From the beginning; what still runs is not entered any more."""
        ring = self._rings.pop(workspace, None)
        self._total -= 0 if ring is None else len(ring.entries)
        self._open(workspace, self.clock.monotonic())

    async def wait(self, workspace: str, since: int, seconds: float) -> None:
        """Until there is an entry after number `since`, at most so long."""
        ring = self._rings.get(workspace) or self._open(workspace, self.clock.monotonic())
        deadline = self.clock.monotonic() + seconds
        while ring.last <= since:
            ring.changed.clear()
            changed = asyncio.ensure_future(ring.changed.wait())
            late = asyncio.ensure_future(self.clock.sleep_until(deadline))
            await asyncio.wait((changed, late), return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            late.cancel()
            if not changed.done() or self._rings.get(workspace) is not ring:
                return

    def _open(self, workspace: str, since: float) -> Ring:
        ring = self._rings[workspace] = Ring(deque(maxlen=self._size), since)
        return ring


@dataclass(frozen=True, slots=True)
class Attempt:
    """Which attempt of a call an entry is."""

    ordinal: int
    first: Entry
    before: Entry | None
    """The attempt before; None of a first one."""

    def gap(self, entry: Entry) -> float:
        """Seconds that the client let pass since the answer to the attempt before."""
        return 0.0 if self.before is None else gap(self.before, entry)


def gap(before: Entry, after: Entry) -> float:
    """Seconds from the end of one request to the start of the next.

    The longer of the two clocks' times: the workspace's jumps when it is advanced, and the
    machine's runs on when that stands still (`--clock paused`).
    """
    return max(after.started - before.ended, after.at - before.ended_at)


def attempts(entries: Sequence[Entry]) -> Iterator[tuple[Entry, Attempt]]:
    """Each entry with the attempt it is: the same call of the same client after a failed one."""
    latest: dict[tuple[object, ...], tuple[Entry, Attempt]] = {}
    for entry in entries:
        attempt = Attempt(1, entry, None)
        known = latest.get(entry.call)
        if known is not None:
            before, was = known
            if before.failed and gap(before, entry) <= RETRY_SECONDS:
                attempt = Attempt(was.ordinal + 1, was.first, before)
        latest[entry.call] = entry, attempt
        yield entry, attempt


def render(entry: Entry, attempt: Attempt) -> dict[str, Any]:
    """An entry on the wire of `/_emulator/requests`; times in seconds."""
    stream_began = entry.first_byte
    return {
        "number": entry.number,
        "request_id": entry.request_id,
        "at": round(entry.at, 6),
        "real_time": round(entry.real_time, 6),
        "user": entry.user,
        "operation": entry.operation,
        "endpoint": entry.endpoint,
        "served_entity": entry.entity,
        "method": entry.method,
        "path": entry.path,
        "query": entry.query,
        "status": entry.status,
        "error_code": entry.error_code,
        "state": entry.state,
        "fault": entry.fault,
        "fault_phase": entry.fault_phase,
        "retry_after": entry.retry_after,
        "user_agent": entry.user_agent,
        "client_retry": entry.client_retry,
        "attempt": attempt.ordinal,
        "retry_of": attempt.first.request_id if attempt.before is not None else None,
        "tokens_in": entry.tokens_in,
        "tokens_out": entry.tokens_out,
        "ttft": None if stream_began is None else round(stream_began - entry.started, 6),
        "duration": round(entry.ended - entry.started, 6),
        "bytes_in": entry.bytes_in,
        "bytes_out": entry.bytes_out,
    }


def shown_query(query: bytes) -> str:
    """Names and numbers of a query string; other values may be secrets."""
    if not query:
        return ""
    pairs = (part.partition("=") for part in query.decode("latin-1").split("&") if part)
    shown = (name + (f"={v}" if NUMBER.fullmatch(v) else "=…") for name, _, v in pairs)
    return "&".join(shown)[:200]


def filled(entry: Entry, scope: Mapping[str, Any]) -> Entry:
    """With what the request's way through the app left in its scope (see `journalling`)."""
    entry.request_id = scope.get("request_id", "")
    entry.user = scope["principal"].user
    entry.path = scope["path"]
    entry.endpoint = scope.get("endpoint_name") or endpoint_of(entry.method, entry.path)
    entry.state = scope.get("shown_state", "")
    fault = scope.get("fault")
    if fault is not None:
        entry.fault, entry.fault_phase = fault
    exchange = scope.get("exchange")
    if exchange is not None:
        entry.tokens_in, entry.tokens_out = exchange.tokens_in, exchange.tokens_out
    return entry
