"""Scaled to zero and awake again: pure steps between the messages of a READY entity.

The entity stays READY (facts/control_plane §3). Where its config is in this is told by the
message and by `due_at`: awake and due (to be looked at), asleep (not due), waking (asleep and due).
"""

from dataclasses import replace

from servemu.lifecycle.transitions import enter
from servemu_state.records import Endpoint, EntityState, ServedEntity

SCALED_TO_ZERO = "Scaled to zero"
"""`deployment_state_message` (facts/control_plane §3)."""


def scales_to_zero(entity: ServedEntity) -> bool:
    return bool(entity.settings.get("scale_to_zero_enabled"))


def is_scaled_to_zero(entity: ServedEntity) -> bool:
    """Asleep, or waking."""
    return entity.state is EntityState.READY and entity.state_message == SCALED_TO_ZERO


def scale_to_zero(endpoint: Endpoint) -> Endpoint:
    """Nobody asked for long enough: what may sleep does. It wakes with its least replicas."""
    asleep = _with_message(endpoint, SCALED_TO_ZERO, due_at=None)
    assert asleep.active is not None
    entities = tuple(
        replace(entity, replicas=None) if is_scaled_to_zero(entity) else entity
        for entity in asleep.active.entities
    )
    return replace(asleep, active=replace(asleep.active, entities=entities))


def start_waking(endpoint: Endpoint, due_at: float) -> Endpoint:
    """A request came: the entities are up again at `due_at`."""
    return _with_message(endpoint, SCALED_TO_ZERO, due_at)


def stay_awake(endpoint: Endpoint, idle_at: float) -> Endpoint:
    """Up, and to be looked at again at `idle_at`."""
    return _with_message(endpoint, "", idle_at)


def _with_message(endpoint: Endpoint, message: str, due_at: float | None) -> Endpoint:
    assert endpoint.active is not None, endpoint.name
    entities = tuple(
        enter(entity, EntityState.READY, message) if scales_to_zero(entity) else entity
        for entity in endpoint.active.entities
    )
    return replace(endpoint, active=replace(endpoint.active, entities=entities, due_at=due_at))
