"""One request as fault rules see it, and which of them hit it.

The middleware `Injection` puts it into the scope of a request that some rule may concern; whoever
comes to a point where a fault may act asks it to draw.
"""

from collections.abc import MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any

from servemu.faults.ledger import Armed, Faults, Fired
from servemu.faults.rules import Occasion, is_about
from servemu.schemas.effects import Delay, Phase
from servemu_state.database import Database


@dataclass(slots=True)
class Exposure:
    """Belongs to the event loop."""

    faults: Faults
    db: Database
    occasion: Occasion
    """With the phase `request`."""
    scope: MutableMapping[str, Any]
    own: tuple[Armed, ...] = ()
    """Rules that are not stored yet: of the tag of an endpoint that this request creates."""
    ids: list[str] = field(default_factory=list)
    """Of the rules that hit so far: the header `X-Emulator-Fault` of the answer."""

    def draw(self, phase: Phase, *, entity: str = "", of_serving: bool = False) -> list[Fired]:
        """All delays that hit and at most one other effect."""
        occasion = replace(self.occasion, phase=phase, entity=entity, of_serving=of_serving)
        fired = [
            Fired(armed.id, armed.rule)
            for armed in self.own
            if phase in ("request", "network") and is_about(armed.rule, occasion)
        ]
        if not any(not isinstance(one.rule.effect, Delay) for one in fired):
            with self.db.write() as connection:
                fired += self.faults.draw(connection, occasion)
        self.note(fired)
        return fired

    def note(self, fired: list[Fired]) -> None:
        """They hit: the answer says so, and so does the journal."""
        for one in fired:
            self.ids.append(one.id)
            self.scope["fault"] = one.id, one.rule.phase  # the last one decides what is seen

    def give_back(self, fired: Fired) -> None:
        """It did not come to happen."""
        self.faults.give_back(self.occasion.workspace, fired.id)
