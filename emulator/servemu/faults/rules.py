"""Does a rule hit this request? Pure functions of the rule, the occasion and the ledger."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from servemu.faults.operations import is_named
from servemu.schemas.effects import Phase
from servemu.schemas.faults import Match, Rule, When
from servemu_state.records import FaultRule


@dataclass(frozen=True, slots=True)
class Occasion:
    """A request at the point where a fault may hit it."""

    workspace: str
    operation: str
    endpoint: str
    phase: Phase
    now: float
    """Seconds since the epoch, on the workspace's clock."""
    request_id: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Lower-case names."""
    method: str = ""
    path: str = ""
    entity: str = ""
    """The served entity that the traffic split chose; empty before it did."""
    stream: bool | None = None
    """Of a query: whether it asks for a stream."""
    states: Collection[str] = ()
    """What the endpoint's state showed when the request came; nothing when there was none."""
    of_serving: bool = False
    """In `lifecycle`: something may happen to what serves, and not to a new deployment."""


def is_about(rule: Rule, occasion: Occasion) -> bool:
    """The rule's phase and everything in its `match` and `when.state` agree with the occasion."""
    return (
        rule.phase == occasion.phase
        and rule.effect.of_serving == occasion.of_serving
        and _matches(rule.match, occasion)
        and (rule.when.state is None or rule.when.state in occasion.states)
    )


def hits(when: When, stored: FaultRule) -> bool:
    """The next match of this rule fires.

    The draw is a hash of (seed, rule, workspace, ordinal of the match), so the order in which
    other rules are asked cannot change it (design §10).
    """
    ordinal = stored.matched
    if ordinal < when.skip:
        return False
    if when.times is not None and stored.fired >= when.times:
        return False
    return draw(when.seed, stored.id, stored.workspace, ordinal) < when.probability


def draw(seed: int, rule: str, workspace: str, ordinal: int) -> float:
    """A number in [0, 1) that depends on nothing else."""
    text = f"{seed}\0{rule}\0{workspace}\0{ordinal}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest()) / 2**56


def is_live(rule: Rule, created_at: float, now: float) -> bool:
    """Not expired, and between `from` and `until`; times are of the workspace's clock."""
    age = now - created_at
    when = rule.when
    return (
        (rule.expires_in is None or age < rule.expires_in.total_seconds())
        and (when.from_ is None or age >= when.from_.total_seconds())
        and (when.until is None or age < when.until.total_seconds())
    )


def next_change(rule: Rule, created_at: float, now: float) -> float | None:
    """When `is_live` changes next, on the workspace's clock; None: it stays as it is."""
    ends = (rule.when.from_, rule.when.until, rule.expires_in)
    times = [created_at + end.total_seconds() for end in ends if end is not None]
    return min((at for at in times if at > now), default=None)


def may_concern(rule: Rule, operation: str) -> bool:
    """What can be told of a request before it is read."""
    named = rule.match.operation
    return named is None or is_named(named, operation)


def _matches(match: Match, occasion: Occasion) -> bool:
    return (
        (match.operation is None or is_named(match.operation, occasion.operation))
        and fnmatchcase(occasion.endpoint, match.endpoint)
        and match.method in (None, occasion.method)
        and (match.path is None or fnmatchcase(occasion.path, match.path))
        and match.stream in (None, occasion.stream)
        and _matches_entity(match, occasion)
        and all(occasion.headers.get(k.lower()) == v for k, v in match.header.items())
    )


def _matches_entity(match: Match, occasion: Occasion) -> bool:
    """A rule of the phase `request` is asked once: before the traffic split, or behind it."""
    if match.entity is None:
        return not (occasion.phase == "request" and occasion.entity)
    return bool(occasion.entity) and fnmatchcase(occasion.entity, match.entity)
