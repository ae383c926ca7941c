"""What a client made of the endpoints it created and updated.

A client is a user here, not a user agent: who deploys by one library may query by another.
"""

from collections.abc import Iterator, Sequence

from servemu.entry import Entry
from servemu.verdict.findings import (
    CREATES,
    DELETE,
    GET,
    LIST,
    QUERY,
    READS_WHY,
    UPDATES,
    Finding,
    Seen,
    Thresholds,
)
from servemu_state.records import ConfigUpdate, Endpoint

LOST = (None, 408, 499, 500, 502, 504)
"""After these nobody knows whether the write happened."""
LOST_PHASES = frozenset({"after_commit", "network"})
ANSWERS_FAILURE = CREATES | UPDATES | READS_WHY | {DELETE, "serving-endpoints.stop"}
"""What a client does that has understood UPDATE_FAILED: read why, deploy again, take away."""


def created_again_after_lost_reply(seen: Seen, limits: Thresholds) -> Iterator[Finding]:
    """A create whose reply was lost was sent again, and nobody had looked in between.

    Also when the second is answered 409: then the first, whatever its answer, had happened.
    """
    for (_, endpoint), entries in seen.by_endpoint().items():
        before: Entry | None = None
        for entry in entries:
            if entry.operation in (GET, LIST, DELETE):
                before = None
            elif entry.operation in CREATES:
                if before is not None and (was_lost(before) or _met_the_first(before, entry)):
                    yield Finding(
                        "created_again_after_lost_reply",
                        "error",
                        f"The create of '{endpoint}' was answered {_answer(before)} and sent "
                        f"again without a look, then answered {_answer(entry)}.",
                        endpoint,
                        (before.request_id, entry.request_id),
                    )
                before = entry


def looked_only_at_ready(seen: Seen, limits: Thresholds) -> Iterator[Finding]:
    """Two signs: it polled on although UPDATE_FAILED was shown; or it stopped at READY while the
    update was under way, sent queries, and never looked again.
    """
    for (_, endpoint), entries in seen.by_endpoint().items():
        on = _polls_after_failure(entries)
        if len(on) > limits.polls_after_failure:
            yield Finding(
                "looked_only_at_ready",
                "error",
                f"Endpoint '{endpoint}' was shown as UPDATE_FAILED, and polled {len(on) - 1} "
                "times more.",
                endpoint,
                tuple(entry.request_id for entry in on),
            )
        early = _queries_before_settled(entries)
        if early:
            yield Finding(
                "looked_only_at_ready",
                "error",
                f"The update of '{endpoint}' was last seen READY but IN_PROGRESS; then came "
                "queries, and nobody looked how it ended.",
                endpoint,
                tuple(entry.request_id for entry in early),
            )


def ignored_update_failed(seen: Seen, limits: Thresholds) -> Iterator[Finding]:
    """Two signs: UPDATE_FAILED was shown and the next requests were queries; or the update failed
    and whoever sent it never looked.
    """
    now = {endpoint.name: endpoint for endpoint in seen.endpoints}
    for (_, endpoint), entries in seen.by_endpoint().items():
        queries = _queries_after_failure(entries)
        if queries:
            yield Finding(
                "ignored_update_failed",
                "error",
                f"Endpoint '{endpoint}' was shown as UPDATE_FAILED; the next requests were "
                f"{len(queries) - 1} queries.",
                endpoint,
                tuple(entry.request_id for entry in queries),
            )
        unread = _unread_failure(entries, now.get(endpoint))
        if unread is not None:
            yield Finding(
                "ignored_update_failed",
                "error",
                f"The update of '{endpoint}' failed, and whoever sent it never looked.",
                endpoint,
                (unread.request_id,),
            )


def left_orphans(seen: Seen, limits: Thresholds) -> Iterator[Finding]:
    """Endpoints that were created and are still there: an error when the create's reply was lost
    and nobody has looked since, else only a note.
    """
    still_there = {endpoint.name for endpoint in seen.endpoints}
    for (_, endpoint), entries in seen.by_endpoint().items():
        made = [e for e in entries if e.operation in CREATES and (was_lost(e) or not e.failed)]
        if endpoint not in still_there or not made:
            continue
        after = entries[entries.index(made[-1]) + 1 :]
        looked = any(e.operation == GET and e.status == 200 for e in after)
        unknown = was_lost(made[-1]) and not looked
        why = "its create's reply was lost and nobody looked" if unknown else "never deleted"
        yield Finding(
            "left_orphans",
            "error" if unknown else "note",
            f"Endpoint '{endpoint}' is still there: {why}.",
            endpoint,
            (made[-1].request_id,),
        )


def was_lost(entry: Entry) -> bool:
    """The write may have happened, and the client cannot know."""
    return entry.status in LOST or (entry.failed and entry.fault_phase in LOST_PHASES)


def _met_the_first(before: Entry, entry: Entry) -> bool:
    return before.failed and before.status != 409 and entry.error_code == "RESOURCE_ALREADY_EXISTS"


def _answer(entry: Entry) -> str:
    return "nothing" if entry.status is None else f"{entry.status} {entry.error_code}".strip()


def _shows_failure(entry: Entry) -> bool:
    return entry.operation == GET and entry.state.endswith(ConfigUpdate.UPDATE_FAILED.value)


def _polls_after_failure(entries: Sequence[Entry]) -> list[Entry]:
    """The longest row of polls that all show UPDATE_FAILED; queries and lists may lie between."""
    longest: list[Entry] = []
    row: list[Entry] = []
    for entry in entries:
        if _shows_failure(entry):
            row.append(entry)
        elif entry.operation not in (QUERY, LIST):
            row = []
        longest = max(longest, row, key=len)
    return list(longest)


def _queries_after_failure(entries: Sequence[Entry]) -> list[Entry]:
    """The poll that showed UPDATE_FAILED, and the queries after it; empty without a query, or
    when something in between shows that it was understood.
    """
    shown: list[Entry] = []
    for entry in entries:
        if _shows_failure(entry):
            shown = shown or [entry]
        elif shown and entry.operation == QUERY:
            shown.append(entry)
        elif entry.operation in ANSWERS_FAILURE:
            if len(shown) > 1:
                break
            shown = []
    return shown if len(shown) > 1 else []


def _queries_before_settled(entries: Sequence[Entry]) -> list[Entry]:
    """The last poll, which showed READY IN_PROGRESS, and the queries after it."""
    polls = [i for i, entry in enumerate(entries) if entry.operation == GET]
    if not polls or entries[polls[-1]].state != "READY IN_PROGRESS":
        return []
    last = polls[-1]
    after = entries[last + 1 :]
    if any(entry.operation in ANSWERS_FAILURE for entry in after):
        return []
    queries = [entry for entry in after if entry.operation == QUERY]
    return [entries[last], *queries] if queries else []


def _unread_failure(entries: Sequence[Entry], endpoint: Endpoint | None) -> Entry | None:
    """The update that failed, when the user who sent it has not been shown that since."""
    if endpoint is None or endpoint.config_update is not ConfigUpdate.UPDATE_FAILED:
        return None
    sent = [e for e in entries if e.operation in CREATES | UPDATES and not e.failed]
    if not sent:
        return None
    after = entries[entries.index(sent[-1]) + 1 :]
    looked = any(e.operation in READS_WHY or _shows_failure(e) for e in after)
    return None if looked else sent[-1]
