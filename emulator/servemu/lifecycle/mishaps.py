"""Faults of what serves: at a request about an endpoint, something happens to it by itself."""

from servemu.faults.ledger import Fired
from servemu.lifecycle import fates, transitions
from servemu.lifecycle.fates import CREATING
from servemu.lifecycle.timeline import MESSAGES, Timeline
from servemu.schemas.effects import LoadFailed, ReloadFailed, ReplicaLost
from servemu.schemas.rendering import is_ready
from servemu_state import endpoints
from servemu_state.database import Database
from servemu_state.records import ConfigUpdate, Endpoint, JsonObject


def begin(timeline: Timeline, endpoint: Endpoint, fault: JsonObject | None) -> Endpoint:
    """The config that was accepted enters its first stage, with the fault it drew."""
    accepted = transitions.with_fault(endpoint, fault)
    pending = accepted.pending
    assert pending is not None
    due_at = pending.started_at + timeline.seconds(pending, CREATING)
    message = fates.message(pending, CREATING, MESSAGES[CREATING])
    return transitions.enter_stage(accepted, CREATING, message, due_at)


def befallen(timeline: Timeline, fired: Fired, endpoint: Endpoint, now: float) -> Endpoint:
    """The endpoint after it happened; the same where nothing serves that it could happen to."""
    effect = fired.rule.effect
    if endpoint.active is None or not is_ready(endpoint):
        return endpoint
    if isinstance(effect, ReplicaLost):
        return transitions.recover(endpoint, now + timeline.scaled(effect.lasts.total_seconds()))
    if not isinstance(effect, ReloadFailed) or endpoint.config_update is ConfigUpdate.IN_PROGRESS:
        return endpoint
    again = transitions.accept(endpoint, transitions.fresh(endpoint.active, now), now)
    failing = LoadFailed(message=effect.message).model_dump(mode="json")
    return begin(timeline, again, {"rule": fired.id, "effect": failing})


def name_of(db: Database, workspace: str, endpoint_id: str) -> str:
    """The endpoint's name; empty without one."""
    with db.read() as connection:
        endpoint = endpoints.get_by_id(connection, workspace, endpoint_id)
    return "" if endpoint is None else endpoint.name


def states(endpoint: Endpoint | None) -> list[str]:
    """What its state shows, for fault rules; nothing without one."""
    if endpoint is None:
        return []
    return ["READY" if is_ready(endpoint) else "NOT_READY", endpoint.config_update.value]
