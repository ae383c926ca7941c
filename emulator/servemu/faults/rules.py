"""Does a rule hit this request? Pure functions of the rule, the occasion and the ledger."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from servemu.schemas.faults import Match, Rule, When
from servemu_state.records import FaultRule


@dataclass(frozen=True, slots=True)
class Occasion:
    """A request at the point where a fault may hit it."""

    workspace: str
    operation: str
    endpoint: str
    phase: str
    now: float
    """Seconds since the epoch, on the workspace's clock."""
    request_id: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Lower-case names."""


def is_about(rule: Rule, occasion: Occasion) -> bool:
    """The rule's phase and everything in its `match` agree with the occasion."""
    return rule.phase == occasion.phase and _matches(rule.match, occasion)


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


def is_expired(rule: Rule, created_at: float, now: float) -> bool:
    return rule.expires_in is not None and now >= created_at + rule.expires_in.total_seconds()


def _matches(match: Match, occasion: Occasion) -> bool:
    return (
        match.operation in (None, occasion.operation)
        and fnmatchcase(occasion.endpoint, match.endpoint)
        and all(occasion.headers.get(k.lower()) == v for k, v in match.header.items())
    )
