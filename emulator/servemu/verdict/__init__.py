"""How well the client behaved: findings out of the journal, each naming its requests.

Pure functions of what was seen. Everything is inferred from the wire: what a client did with an
answer shows only in what it asked next, so each check says what it takes for a sign of what.
"""

from collections.abc import Callable, Iterator

from servemu.verdict.deploying import (
    created_again_after_lost_reply,
    ignored_update_failed,
    left_orphans,
    looked_only_at_ready,
)
from servemu.verdict.findings import THRESHOLDS, Finding, Grade, Seen, Thresholds, never_met_fault
from servemu.verdict.polling import polled_for_ever, polled_too_tightly
from servemu.verdict.retrying import ignored_retry_after, no_backoff, retried_not_retryable

__all__ = ["CHECKS", "THRESHOLDS", "Finding", "Grade", "Seen", "judge", "overall"]

Check = Callable[[Seen, Thresholds], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    no_backoff,
    ignored_retry_after,
    retried_not_retryable,
    created_again_after_lost_reply,
    polled_too_tightly,
    polled_for_ever,
    looked_only_at_ready,
    ignored_update_failed,
    left_orphans,
    never_met_fault,
)


def judge(seen: Seen, thresholds: Thresholds = THRESHOLDS) -> list[Finding]:
    """All findings, in the order of `CHECKS`."""
    return [finding for check in CHECKS for finding in check(seen, thresholds)]


def overall(findings: list[Finding]) -> str:
    """`fail` with an error, `warn` with a warning, else `pass`."""
    grades = {finding.grade for finding in findings}
    return "fail" if "error" in grades else "warn" if "warning" in grades else "pass"
