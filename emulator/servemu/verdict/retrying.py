"""How failed requests were sent again."""

from collections.abc import Iterator

from servemu.attempts import Attempt, attempts
from servemu.entry import Entry
from servemu.verdict.findings import Finding, Seen, Thresholds

Retry = tuple[Entry, Attempt]


def no_backoff(seen: Seen, limits: Thresholds) -> Iterator[Finding]:
    """A failed request was sent again at once."""
    for chain in _chains(seen):
        quick = [(e, a) for e, a in chain if a.gap(e) < limits.min_retry_gap]
        if not quick:
            continue
        soonest = min(attempt.gap(entry) for entry, attempt in quick)
        yield Finding(
            "no_backoff",
            "error",
            f"{_named(quick[0][0])} was sent again {len(quick)} times within "
            f"{limits.min_retry_gap} s of a failure, the soonest after {soonest:.3f} s.",
            quick[0][0].endpoint,
            _ids(quick),
        )


def ignored_retry_after(seen: Seen, limits: Thresholds) -> Iterator[Finding]:
    """A retry came sooner than the answer's `Retry-After` allowed."""
    for chain in _chains(seen):
        early = [
            (e, a) for e, a in chain if _asked_to_wait(a) - a.gap(e) > limits.retry_after_slack
        ]
        if not early:
            continue
        entry, attempt = early[0]
        yield Finding(
            "ignored_retry_after",
            "error",
            f"{_named(entry)} was answered Retry-After: {_asked_to_wait(attempt):g} and sent again "
            f"after {attempt.gap(entry):.3f} s.",
            entry.endpoint,
            _ids(early),
        )


def retried_not_retryable(seen: Seen, limits: Thresholds) -> Iterator[Finding]:
    """What was refused for good was sent again. To look again for what is not there is fine."""
    for chain in _chains(seen):
        wrong = [(e, a) for e, a in chain if e.method != "GET" and _is_final(a.before, limits)]
        if not wrong:
            continue
        entry, attempt = wrong[0]
        refused = attempt.before
        assert refused is not None
        yield Finding(
            "retried_not_retryable",
            "error",
            f"{_named(entry)} was answered {refused.status} {refused.error_code} and sent again "
            f"{len(wrong)} times.",
            entry.endpoint,
            _ids(wrong),
        )


def _chains(seen: Seen) -> Iterator[list[Retry]]:
    """The retries of each call that failed, without the first attempt."""
    found: dict[int, list[Retry]] = {}
    for entry, attempt in attempts(seen.entries):
        before = attempt.before
        if before is not None and not (entry.method == "GET" and before.status == 404):
            found.setdefault(attempt.first.number, []).append((entry, attempt))
    yield from found.values()


def _asked_to_wait(attempt: Attempt) -> float:
    """Seconds; 0 where nothing or a date was sent (databricks-sdk cannot read one either)."""
    told = "" if attempt.before is None else attempt.before.retry_after
    return float(told) if told.isdecimal() else 0.0


def _is_final(refused: Entry | None, limits: Thresholds) -> bool:
    """`x-should-retry` wins over the status, as in openai (facts/data_plane §6)."""
    if refused is None or refused.should_retry == "true":
        return False
    return (
        refused.should_retry == "false"
        or refused.status in limits.not_retryable
        or refused.error_code == "RESOURCE_ALREADY_EXISTS"
    )


def _named(entry: Entry) -> str:
    return f"{entry.method} {entry.path}"


def _ids(retries: list[Retry]) -> tuple[str, ...]:
    """Of the attempts before and the retries, in order, once each."""
    entries = {e.number: e for entry, attempt in retries for e in (attempt.before, entry) if e}
    return tuple(entries[number].request_id for number in sorted(entries))
