"""The fault rules of each workspace, and how often each matched and fired."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from servemu.errors import InvalidParameter, ResourceNotFound
from servemu.faults.rules import Occasion, hits, is_about, is_live, may_concern
from servemu.faults.shorthand import HEADER, TAG, header_rule, spelt_out, tag_rule
from servemu.schemas.effects import Delay
from servemu.schemas.faults import Rule, parse_rule, shown
from servemu_state import faults
from servemu_state.database import Connection, Database
from servemu_state.records import Endpoint, FaultRule

FROM_HEADER = "header"
"""The id of the rule that a request brings in its header: it is in no ledger."""


@dataclass(frozen=True, slots=True)
class Armed:
    """A rule as it is stored, without its ledger."""

    id: str
    rule: Rule
    created_at: float


@dataclass(frozen=True, slots=True)
class Fired:
    """A rule that hit."""

    id: str
    rule: Rule


class Faults:
    """Adds, shows, removes and draws fault rules.

    The ledger lives in the database alone. Rules are kept here as well, so that a request which no
    rule concerns costs nothing: who writes rules past this class calls `forget`.
    """

    def __init__(
        self,
        db: Database,
        now: Callable[[str], float],
        configured: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """`now`: workspace → seconds since the epoch on its clock. `configured`: rules of every
        workspace, from `servemu.toml`. Raises `InvalidParameter`.
        """
        self._db = db
        self._now = now
        self._configured = [
            parse_rule(spelt_out({"id": f"config-{number}", **given}))
            for number, given in enumerate(configured, start=1)
        ]
        self._armed: dict[str, list[Armed]] = {}

    def add(self, workspace: str, given: Mapping[str, Any], now: float) -> FaultRule:
        """Check and store a rule. Raises `InvalidParameter`."""
        return self.add_all(workspace, [given], now)[0]

    def add_all(
        self, workspace: str, given: Sequence[Mapping[str, Any]], now: float
    ) -> list[FaultRule]:
        """All of them or, when one is refused, none. Raises `InvalidParameter`."""
        rules = [_parse(one, number, len(given)) for number, one in enumerate(given)]
        self._known(workspace)
        with self._db.write() as connection:
            taken = {armed.id for armed in self._rules(connection, workspace)}
            stored = []
            for number, rule in enumerate(rules):
                if rule.id in taken:
                    where = "" if len(rules) == 1 else f"faults[{number}]."
                    raise InvalidParameter(
                        f"Invalid value for field '{where}id': another rule has it, and each "
                        f'needs its own (given: "{rule.id}")'
                    )
                rule_id = rule.id or _free_id(rule, taken)
                taken.add(rule_id)
                stored.append(_insert(connection, workspace, rule_id, rule, now))
        self.forget(workspace)
        return stored

    def list_all(self, workspace: str) -> list[FaultRule]:
        self._known(workspace)
        with self._db.read() as connection:
            return faults.list_all(connection, workspace)

    def get(self, workspace: str, rule_id: str) -> FaultRule:
        """Raises `ResourceNotFound`."""
        self._known(workspace)
        with self._db.read() as connection:
            stored = faults.get(connection, workspace, rule_id)
        if stored is None:
            raise _not_found(rule_id)
        return stored

    def remove(self, workspace: str, rule_id: str) -> None:
        """Raises `ResourceNotFound`."""
        with self._db.write() as connection:
            if not faults.delete(connection, workspace, rule_id):
                raise _not_found(rule_id)
            self._drop(workspace, rule_id)

    def clear(self, workspace: str) -> None:
        """Also those of the config file, until the next start or reset."""
        with self._db.write() as connection:
            faults.delete_all(connection, workspace)
            self._armed[workspace] = []

    def forget(self, workspace: str) -> None:
        """Read the rules anew: somebody wrote them (reset, snapshots)."""
        self._armed.pop(workspace, None)

    def follow_tags(self, connection: Connection, endpoint: Endpoint, now: float) -> None:
        """The rule of the endpoint's tag `emulator-fault`, in the caller's transaction, after which
        the caller calls `forget`. Raises `InvalidParameter`.
        """
        tags = dict(endpoint.tags)
        given = tag_rule(endpoint.name, tags[TAG]) if TAG in tags else None
        stored = faults.get(connection, endpoint.workspace, f"tag-{endpoint.name}")
        if given is not None:
            rule = parse_rule(given)
            if stored is not None and stored.rule == shown(rule):
                return
        if stored is not None:
            faults.delete(connection, endpoint.workspace, stored.id)
        if given is not None:
            _insert(connection, endpoint.workspace, f"tag-{endpoint.name}", rule, now)
        self.forget(endpoint.workspace)

    def untag(self, connection: Connection, endpoint: Endpoint) -> None:
        """The endpoint is gone, and the rule of its tag with it."""
        if TAG in dict(endpoint.tags):
            faults.delete(connection, endpoint.workspace, f"tag-{endpoint.name}")
            self._drop(endpoint.workspace, f"tag-{endpoint.name}")

    def concern(self, workspace: str, operation: str) -> bool:
        """Some rule may hit such a request: it is worth a closer look."""
        return any(may_concern(one.rule, operation) for one in self._known(workspace))

    def ask_for_state(self, workspace: str) -> bool:
        """Some rule looks at the state of its endpoint."""
        return any(one.rule.when.state is not None for one in self._known(workspace))

    def live(self, connection: Connection, occasion: Occasion) -> list[Armed]:
        """The rules that agree with the occasion, in order; nothing is drawn or counted."""
        return [
            armed
            for armed in self._rules(connection, occasion.workspace)
            if is_live(armed.rule, armed.created_at, occasion.now)
            and is_about(armed.rule, occasion)
        ]

    def draw(self, connection: Connection, occasion: Occasion) -> list[Fired]:
        """The first rule that hits, and all delays, entered into the ledger within the caller's
        transaction. A rule of the request's own header comes before all others.
        """
        fired = _from_header(occasion)
        decided = any(not isinstance(one.rule.effect, Delay) for one in fired)
        for armed in self.live(connection, occasion):
            is_delay = isinstance(armed.rule.effect, Delay)
            if (is_delay or not decided) and self.count(connection, occasion, armed):
                fired.append(Fired(armed.id, armed.rule))
                decided = decided or not is_delay
        return fired

    def count(self, connection: Connection, occasion: Occasion, armed: Armed) -> bool:
        """One more match of the rule; whether it fires."""
        stored = faults.get(connection, occasion.workspace, armed.id)
        if stored is None:
            self.forget(occasion.workspace)
            return False
        fires = hits(armed.rule.when, stored)
        counted = replace(
            stored,
            matched=stored.matched + 1,
            fired=stored.fired + fires,
            last_request_id=occasion.request_id,
        )
        faults.save(connection, counted)
        return fires

    def give_back(self, workspace: str, rule_id: str) -> None:
        """It fired, but did not come to happen: the answer was over before."""
        with self._db.write() as connection:
            stored = faults.get(connection, workspace, rule_id)
            if stored is not None and stored.fired > 0:
                faults.save(connection, replace(stored, fired=stored.fired - 1))

    def _known(self, workspace: str) -> list[Armed]:
        armed = self._armed.get(workspace)
        if armed is None:
            self._now(workspace)  # a new workspace is stored in a transaction of its own
            with self._db.write() as connection:
                armed = self._rules(connection, workspace)
        return armed

    def _rules(self, connection: Connection, workspace: str) -> list[Armed]:
        armed = self._armed.get(workspace)
        if armed is None:
            stored = faults.list_all(connection, workspace)
            known = {one.id for one in stored}
            for rule in self._configured:
                if rule.id is not None and rule.id not in known:
                    stored.append(
                        _insert(connection, workspace, rule.id, rule, self._now(workspace))
                    )
            armed = [Armed(one.id, parse_rule(one.rule), one.created_at) for one in stored]
            self._armed[workspace] = armed
        return armed

    def _drop(self, workspace: str, rule_id: str) -> None:
        armed = self._armed.get(workspace)
        if armed is not None:
            self._armed[workspace] = [one for one in armed if one.id != rule_id]


def render_rule(stored: FaultRule) -> dict[str, Any]:
    """The rule with its ledger: matched, fired, remaining (null: no limit)."""
    times = stored.rule["when"].get("times")
    return {
        **stored.rule,
        "matched": stored.matched,
        "fired": stored.fired,
        "remaining": None if times is None else times - stored.fired,
        "last_request_id": stored.last_request_id,
    }


def _parse(given: Mapping[str, Any], number: int, count: int) -> Rule:
    try:
        return parse_rule(spelt_out(given))
    except InvalidParameter as error:
        if count == 1:
            raise
        raise InvalidParameter(f"faults[{number}]: {error.message}") from None


def _free_id(rule: Rule, taken: set[str]) -> str:
    """The same in every run, so that draws are."""
    name = rule.preset or rule.effect.type
    number = 1
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"


def _insert(
    connection: Connection, workspace: str, rule_id: str, rule: Rule, now: float
) -> FaultRule:
    named = rule.model_copy(update={"id": rule_id})
    stored = FaultRule(workspace=workspace, id=rule_id, rule=shown(named), created_at=now)
    faults.insert(connection, stored)
    return stored


def _from_header(occasion: Occasion) -> list[Fired]:
    text = occasion.headers.get(HEADER)
    if text is None:
        return []
    rule = header_rule(text)
    return [Fired(FROM_HEADER, rule)] if is_about(rule, occasion) else []


def _not_found(rule_id: str) -> ResourceNotFound:
    return ResourceNotFound(f"Fault rule with id '{rule_id}' does not exist.")
