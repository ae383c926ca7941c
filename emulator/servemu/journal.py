"""What was asked and answered: a ring of entries for each workspace, in memory.

Neither bodies nor tokens are kept, and of a query string only names and numbers.
"""

import asyncio
import re
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from servemu.attempts import Attempt
from servemu.clock import Clock
from servemu.entry import Entry
from servemu.operation import endpoint_of
from servemu.workspace import Workspaces

RINGS = 10
"""So many full rings are kept over all workspaces; then the one not used for longest goes."""
NUMBER = re.compile(r"[0-9]{1,12}")


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
        offset = self._workspaces.clock_offset(workspace)
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
