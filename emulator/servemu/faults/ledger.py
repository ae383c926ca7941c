"""The fault rules of each workspace, and how often each matched and fired."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import servemu_state.errors
from servemu.errors import ResourceNotFound, RuleExists
from servemu.faults.presets import expand
from servemu.faults.rules import Occasion, hits, is_about, is_expired
from servemu.schemas.body import parse
from servemu.schemas.faults import Rule
from servemu_state import faults
from servemu_state.database import Connection, Database
from servemu_state.records import FaultRule


@dataclass(frozen=True, slots=True)
class Fired:
    """A rule that hit."""

    id: str
    rule: Rule


class Faults:
    """Adds, shows, removes and draws fault rules. Nothing is kept outside of the database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, workspace: str, given: Mapping[str, Any], now: float) -> FaultRule:
        """Check and store a rule. Raises `InvalidParameter`, `RuleExists`."""
        rule = parse(expand(given), Rule)
        rule_id = rule.id or f"{rule.preset or rule.effect.type}-{uuid.uuid4().hex[:8]}"
        shown = rule.model_copy(update={"id": rule_id}).model_dump(mode="json", exclude_none=True)
        stored = FaultRule(workspace=workspace, id=rule_id, rule=shown, created_at=now)
        try:
            with self._db.write() as connection:
                faults.insert(connection, stored)
        except servemu_state.errors.FaultExists:
            raise RuleExists(rule_id) from None
        return stored

    def list_all(self, workspace: str) -> list[FaultRule]:
        with self._db.read() as connection:
            return faults.list_all(connection, workspace)

    def get(self, workspace: str, rule_id: str) -> FaultRule:
        """Raises `ResourceNotFound`."""
        with self._db.read() as connection:
            stored = faults.get(connection, workspace, rule_id)
        if stored is None:
            raise ResourceNotFound(f"Fault rule with id '{rule_id}' does not exist.")
        return stored

    def remove(self, workspace: str, rule_id: str) -> None:
        """Raises `ResourceNotFound`."""
        with self._db.write() as connection:
            if not faults.delete(connection, workspace, rule_id):
                raise ResourceNotFound(f"Fault rule with id '{rule_id}' does not exist.")

    def clear(self, workspace: str) -> None:
        with self._db.write() as connection:
            faults.delete_all(connection, workspace)

    def draw(self, connection: Connection, occasion: Occasion) -> Fired | None:
        """The first rule that hits, entered into the ledger within the caller's transaction."""
        for stored in faults.list_all(connection, occasion.workspace):
            rule = Rule.model_validate(stored.rule)
            if not is_about(rule, occasion) or is_expired(rule, stored.created_at, occasion.now):
                continue
            fires = hits(rule.when, stored)
            counted = replace(
                stored,
                matched=stored.matched + 1,
                fired=stored.fired + fires,
                last_request_id=occasion.request_id,
            )
            faults.save(connection, counted)
            if fires:
                return Fired(stored.id, rule)
        return None


def render_rule(stored: FaultRule) -> dict[str, Any]:
    """The rule with its ledger: matched, fired, remaining (null: no limit)."""
    times = Rule.model_validate(stored.rule).when.times
    return {
        **stored.rule,
        "matched": stored.matched,
        "fired": stored.fired,
        "remaining": None if times is None else times - stored.fired,
        "last_request_id": stored.last_request_id,
    }
