"""Which requests are the same call again: a client's retries, told from calls side by side."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from servemu.entry import Entry

RETRY_SECONDS = 120.0
"""The same request again within this time after a failure is a retry: openai and databricks-sdk
wait no longer than that between two (facts/control_plane §6, facts/data_plane §6)."""


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


Tried = tuple[Entry, Attempt]
Failed = dict[tuple[int, bool], deque[Tried]]
"""Attempts that nothing followed yet, by ordinal and whether no answer came; the oldest first."""


def gap(before: Entry, after: Entry) -> float:
    """Seconds from the end of one request to the start of the next.

    The longer of the two clocks' times: the workspace's jumps when it is advanced, and the
    machine's runs on when that stands still (`--clock paused`).
    """
    return max(after.started - before.ended, after.at - before.ended_at)


def attempts(entries: Sequence[Entry]) -> Iterator[Tried]:
    """Each entry with the attempt it is: the same call of the same client after a failed one.

    A failed attempt has one retry, which begins when its answer is there; where none came the
    client may have given up sooner than that was noticed. So calls side by side are not each
    other's retries, and each of them keeps its own row of attempts.
    """
    failed: dict[tuple[object, ...], Failed] = {}
    for entry in entries:
        tried = failed.setdefault(entry.call, {})
        attempt = _attempt(tried, entry)
        if entry.failed:
            kind = attempt.ordinal, entry.status is None
            tried.setdefault(kind, deque()).append((entry, attempt))
        yield entry, attempt


def _attempt(tried: Failed, entry: Entry) -> Attempt:
    """The one that the entry is; what it retries is taken out."""
    kinds = [kind for kind in list(tried) if _may_follow(tried, kind, entry)]
    if not kinds:
        return Attempt(1, entry, None)
    # Which retry it is a client of openai says itself (`x-stainless-retry-count`).
    kind = min(kinds, key=lambda one: (one[0] != entry.client_retry, tried[one][0][0].ended))
    before, was = tried[kind].popleft()
    return Attempt(was.ordinal + 1, was.first, before)


def _may_follow(tried: Failed, kind: tuple[int, bool], entry: Entry) -> bool:
    """Of this kind there is one that the entry may be the retry of; those too old are dropped."""
    waiting = tried[kind]
    while waiting and gap(waiting[0][0], entry) > RETRY_SECONDS:
        waiting.popleft()
    if not waiting:
        del tried[kind]
        return False
    is_lost = kind[1]
    return is_lost or entry.started >= waiting[0][0].ended
