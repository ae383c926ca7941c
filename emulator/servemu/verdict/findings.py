"""What a verdict is made of: what was seen, the thresholds, the findings and what they advise."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from servemu.entry import Entry
from servemu_state.records import Endpoint, FaultRule

Grade = Literal["error", "warning", "note"]

CREATES = frozenset(
    {
        "serving-endpoints.create",
        "serving-endpoints.create_provisioned_throughput_endpoint",
    }
)
UPDATES = frozenset(
    {
        "serving-endpoints.update_config",
        "serving-endpoints.update_provisioned_throughput_endpoint_config",
        "serving-endpoints.start",
    }
)
READS_WHY = frozenset(
    {"serving-endpoints.events", "serving-endpoints.logs", "serving-endpoints.build_logs"}
)
GET = "serving-endpoints.get"
LIST = "serving-endpoints.list"
DELETE = "serving-endpoints.delete"
QUERY = "invocations"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where behaviour becomes a finding. Seconds are the longer of the two clocks' (`journal.gap`).

    GUESSES of ours, set such that the unmodified databricks-sdk and openai clients pass
    (facts/control_plane §6, facts/data_plane §6).
    """

    min_retry_gap: float = 0.25
    """A retry sooner is no back-off: openai waits 0.375 s at least, databricks-sdk 1 s."""
    retry_after_slack: float = 0.1
    """So much too early is not held against anybody."""
    not_retryable: tuple[int, ...] = (400, 401, 403, 404, 405, 413, 415, 422)
    """The same request gets the same answer."""
    poll_gap: float = 1.0
    tight_polls: int = 5
    """So many gaps in a row below `poll_gap`."""
    poll_seconds: float = 1260.0
    """databricks-sdk gives up after 20 minutes."""
    late_polls: int = 2
    """So many polls after `poll_seconds`: one may be a clock that was moved."""
    polls_after_failure: int = 3
    """So many polls after one that showed UPDATE_FAILED."""


THRESHOLDS = Thresholds()


@dataclass(frozen=True, slots=True)
class Seen:
    """A workspace at the time of the verdict."""

    entries: Sequence[Entry]
    """Of the journal, oldest first."""
    endpoints: Sequence[Endpoint] = ()
    """Those that are there now."""
    faults: Sequence[FaultRule] = ()

    def by_endpoint(self) -> Mapping[tuple[str, str], list[Entry]]:
        """What each user asked about each endpoint, in order; a list of all is about every one."""
        found: dict[tuple[str, str], list[Entry]] = {}
        names = {entry.endpoint for entry in self.entries if entry.endpoint}
        users = {entry.user for entry in self.entries}
        keys = sorted((user, name) for user in users for name in names)
        for user, name in keys:
            about = [
                entry
                for entry in self.entries
                if entry.user == user and (entry.endpoint == name or entry.operation == LIST)
            ]
            if any(entry.endpoint == name for entry in about):
                found[user, name] = about
        return found


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the client should not have done."""

    code: str
    grade: Grade
    message: str
    endpoint: str = ""
    requests: tuple[str, ...] = ()
    """Ids of the requests that show it."""
    rules: tuple[str, ...] = field(default=())
    """Ids of fault rules."""

    def render(self) -> dict[str, Any]:
        """On the wire of `/_emulator/verdict`."""
        return {
            "code": self.code,
            "grade": self.grade,
            "endpoint": self.endpoint,
            "message": self.message,
            "advice": ADVICE[self.code],
            "requests": list(self.requests),
            "rules": list(self.rules),
        }


ADVICE: Mapping[str, str] = {
    "no_backoff": "Wait before a retry, and longer before each further one, with some jitter.",
    "ignored_retry_after": "Read the header Retry-After and wait that many seconds.",
    "retried_not_retryable": "The same request will be refused again: report it, do not retry it.",
    "created_again_after_lost_reply": "After a create whose reply was lost, GET the endpoint: it "
    "may be there already.",
    "polled_too_tightly": "A deployment takes minutes: poll every few seconds, ever more slowly.",
    "polled_for_ever": "Give the wait a deadline, and report where the deployment stands then.",
    "looked_only_at_ready": "Wait until config_update is no longer IN_PROGRESS, and read it: "
    "`ready` says only that some config answers.",
    "ignored_update_failed": "UPDATE_FAILED means that the old config serves on: read the events "
    "and the entity's state message, then deploy again or give up loudly.",
    "left_orphans": "Delete what you created, above all after a lost reply: it costs money.",
    "never_met_fault": "The test did not reach what it was to prove: check the rule's operation, "
    "endpoint glob and phase.",
}


def never_met_fault(seen: Seen, limits: Thresholds) -> Iterator[Finding]:
    """Rules that no request matched, and those that must fire and did not."""
    for fault in seen.faults:
        must_fire = bool(fault.rule.get("must_fire")) and fault.fired == 0
        if not must_fire and fault.matched > 0:
            continue
        what = "must fire, and did not" if must_fire else "was never matched"
        yield Finding(
            "never_met_fault",
            "error" if must_fire else "warning",
            f"Fault rule '{fault.id}' {what} (matched {fault.matched} times).",
            rules=(fault.id,),
        )
