"""How a client waited for a deployment: the GETs of an endpoint that was still coming up."""

from collections.abc import Iterator, Sequence

from servemu.attempts import gap
from servemu.entry import Entry
from servemu.verdict.findings import GET, LIST, QUERY, Finding, Seen, Thresholds


def polled_too_tightly(seen: Seen, limits: Thresholds) -> Iterator[Finding]:
    """Many polls in a row with less than a second between."""
    for (_, endpoint), waiting in _waits(seen):
        runs = [run for run in _runs(waiting, limits) if len(run) > limits.tight_polls]
        if not runs:
            continue
        longest = max(runs, key=len)
        yield Finding(
            "polled_too_tightly",
            "warning",
            f"Endpoint '{endpoint}' was polled {len(longest)} times in a row with less than "
            f"{limits.poll_gap:g} s between.",
            endpoint,
            tuple(entry.request_id for entry in longest),
        )


def polled_for_ever(seen: Seen, limits: Thresholds) -> Iterator[Finding]:
    """Polls of one deployment that go on beyond the time that any client should wait."""
    for (_, endpoint), waiting in _waits(seen):
        late = [e for e in waiting if e.at - waiting[0].at > limits.poll_seconds]
        if len(late) < limits.late_polls:
            continue
        yield Finding(
            "polled_for_ever",
            "warning",
            f"Endpoint '{endpoint}' was polled for {late[-1].at - waiting[0].at:.0f} s without an "
            f"end, {len(waiting)} times.",
            endpoint,
            tuple(entry.request_id for entry in (waiting[0], *late)),
        )


def _waits(seen: Seen) -> Iterator[tuple[tuple[str, str], Sequence[Entry]]]:
    """Each stretch of polls that showed one deployment under way.

    A poll that shows it settled ends the stretch; so does anything but polls and queries.
    """
    for key, entries in seen.by_endpoint().items():
        waiting: list[Entry] = []
        for entry in entries:
            if entry.operation == GET and entry.status == 200 and _is_under_way(entry):
                waiting.append(entry)
            elif entry.operation not in (QUERY, LIST) and waiting:
                yield key, waiting
                waiting = []
        if waiting:
            yield key, waiting


def _is_under_way(entry: Entry) -> bool:
    return entry.state.endswith("IN_PROGRESS")


def _runs(waiting: Sequence[Entry], limits: Thresholds) -> Iterator[list[Entry]]:
    run: list[Entry] = []
    for entry in waiting:
        if run and gap(run[-1], entry) >= limits.poll_gap:
            yield run
            run = []
        run.append(entry)
    yield run
