"""What an endpoint's history says, in the real words (facts/provisioned_throughput §4).

Of the types only `SERVED_ENTITY_CONTAINER_EVENT` was ever seen, of the statuses none: the other
type is a GUESS, and so is the status, which is that of the endpoint or of the served entity at the
time. Texts are real where they say so.
"""

import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from servemu.lifecycle import fates
from servemu.lifecycle.fates import LOADING
from servemu.schemas.rendering import milliseconds
from servemu_engine.base import EngineInfo
from servemu_state.records import ConfigUpdate, Deployment, Endpoint, Event, ServedEntity

ENDPOINT_UPDATE = "ENDPOINT_UPDATE"
CONTAINER = "SERVED_ENTITY_CONTAINER_EVENT"

ENDED: Mapping[ConfigUpdate, str] = {
    ConfigUpdate.NOT_UPDATING: "succeeded",
    ConfigUpdate.UPDATE_FAILED: "failed",
    ConfigUpdate.UPDATE_CANCELED: "canceled",
}
"""`Endpoint update failed for endpoint x, config version 1` is real, the others GUESSES."""
STARTED = "Container started"
LOAD_FAILED = "Model server failed to load the model."
AWAKE = "Scaled up from zero"
SCALED = "Scaled {way} from {before} to {after} {word}"
SHORT = "Scale-up stops at {replicas} {word}: no {workload_type} capacity"
"""GUESSES, as all of autoscaling; its messages of a scaled endpoint were never seen."""
IMAGE = "Container image creation"
"""How the real events of an image build begin; `system.ai` models need none."""
TRACE = "\nTraceback "
"""What follows is shown in the logs only."""
MAX_TRACE = 4000
"""Characters: the end of it, where the reason is."""

ABOUT_ENTITY = re.compile(
    r"(?:Served entity|Failed to deploy) (?P<entity>[^:]+): (?P<text>.*)", re.S
)
"""`Failed to deploy <name>: …` is real; the other beginning is a GUESS after it."""


@dataclass(frozen=True, slots=True)
class Where:
    """The config version that something happened to."""

    endpoint_id: str
    config_version: int


def events_between(before: Endpoint | None, after: Endpoint) -> list[Event]:
    """What happened from one record of an endpoint to its next; `before` None: it is new."""
    told: list[Event] = []
    if before is None:
        told.append(_update(after, "Endpoint created"))
    if after.last_config_version > (0 if before is None else before.last_config_version):
        told.append(_update(after, f"Endpoint update initiated for {_which(after)}"))
    told += _containers_started(before, after)
    if _has_failed(before, after):
        told += _builds_failed(after) + _logged(after) + _entities_failed(after)
    told += _entities_moved(before, after)
    if _has_ended(before, after):
        ended = ENDED[after.config_update]
        told.append(_update(after, f"Endpoint update {ended} for {_which(after)}"))
    return told


def loaded(endpoint: Endpoint, entity: ServedEntity, info: EngineInfo, at: float) -> Event:
    """The model server of the entity is up, with the figures of what it loaded."""
    figures = (
        f"Model loaded in {info.load_seconds:.3f} s: {info.name} ({info.architecture}, "
        f"{info.dtype} on {info.device}, {info.num_parameters} parameters, {info.num_bytes} bytes, "
        f"context {info.context_length} tokens)"
    )
    return _about(_pending(endpoint), entity, f"Served entity {entity.name}: {figures}", at)


def not_loaded(endpoint: Endpoint, entity: ServedEntity, error: BaseException, at: float) -> Event:
    """Why the model server of the entity did not come up: the reason, then where it came from."""
    trace = "".join(traceback.format_exception(error)).strip()
    if len(trace) > MAX_TRACE:
        trace = f"Traceback (its end):\n{trace[-MAX_TRACE:]}"
    text = f"{LOAD_FAILED}\n{trace}"
    return _about(_pending(endpoint), entity, f"Served entity {entity.name}: {text}", at)


def scaled(endpoint: Endpoint, entity: ServedEntity, replicas: tuple[int, int], at: float) -> Event:
    """Replicas of what serves came or went: from so many to so many."""
    before, after = replicas
    way = "up" if after > before else "down"
    text = SCALED.format(way=way, before=before, after=after, word=_replicas(after))
    return _about_active(endpoint, entity, text, at)


def fell_short(
    endpoint: Endpoint, entity: ServedEntity, replicas: int, workload_type: str, at: float
) -> Event:
    """The GPU pool had no more for it."""
    text = SHORT.format(replicas=replicas, word=_replicas(replicas), workload_type=workload_type)
    return _about_active(endpoint, entity, text, at)


def render_event(event: Event) -> dict[str, Any]:
    """`{event_type, status, message, timestamp}` (facts/control_plane §1.2)."""
    return {
        "event_type": event.type,
        "status": event.status,
        "message": event.message.partition(TRACE)[0],
        "timestamp": milliseconds(event.at),
    }


def _containers_started(before: Endpoint | None, after: Endpoint) -> list[Event]:
    """Those of a pending config that reached the stage, or of one that serves at once. An entity
    that runs elsewhere (`external_model`) has none.
    """
    pending, active = after.pending, after.active
    was = None if before is None else before.pending
    if pending is not None and pending.stage == LOADING:
        if was is None or was.due_at is None or was.stage == LOADING:
            return []
        return _started(after, pending, was.due_at)
    if active is None or _version(before) == active.config_version:
        return []
    if was is not None and was.config_version == active.config_version:
        return []
    return _started(after, active, after.updated_at)


def _started(endpoint: Endpoint, deployment: Deployment, at: float) -> list[Event]:
    where = Where(endpoint.id, deployment.config_version)
    return [
        _about(where, entity, f"Served entity {entity.name}: {STARTED}", at)
        for entity in deployment.entities
        if entity.entity_name is not None
    ]


def _has_failed(before: Endpoint | None, after: Endpoint) -> bool:
    failed = after.config_update is ConfigUpdate.UPDATE_FAILED
    return failed and after.pending is not None and _has_ended(before, after)


def _builds_failed(after: Endpoint) -> list[Event]:
    """Each attempt of an image build in vain; real texts (facts/provisioned_throughput §4)."""
    pending = after.pending
    assert pending is not None
    attempts = fates.build_attempts(pending)
    told = []
    for entity in pending.entities:
        for number in range(attempts):
            share = (after.updated_at - pending.started_at) / attempts
            begun = pending.started_at + number * share
            start = f"Served entity {entity.name}: {IMAGE}"
            told.append(_about(_pending(after), entity, f"{start} initiated", begun))
            failed = f"{start} failed: internal error"
            told.append(_about(_pending(after), entity, failed, begun + share))
    return told


def _logged(after: Endpoint) -> list[Event]:
    """What a fault says in the service log of the entities that failed."""
    assert after.pending is not None
    log = fates.log_of(after.pending)
    if not log:
        return []
    text = f"{LOAD_FAILED}{TRACE}(most recent call last):\n{log}"
    return [
        _about(_pending(after), entity, f"Served entity {entity.name}: {text}", after.updated_at)
        for entity in after.pending.entities
    ]


def _entities_failed(after: Endpoint) -> list[Event]:
    assert after.pending is not None
    return [
        _about(
            _pending(after),
            entity,
            f"Failed to deploy {entity.name}: {entity.state_message}",
            after.updated_at,
        )
        for entity in after.pending.entities
    ]


def _entities_moved(before: Endpoint | None, after: Endpoint) -> list[Event]:
    """What serves was stopped, or went to sleep, or woke up: the entity's own message (GUESS)."""
    if before is None or before.active is None or after.active is None:
        return []
    if before.active.config_version != after.active.config_version:
        return []
    was = {entity.name: entity.state_message for entity in before.active.entities}
    at = after.updated_at if after.updated_at > before.updated_at else before.active.due_at
    return [
        _about(
            Where(after.id, after.active.config_version),
            entity,
            f"Served entity {entity.name}: {entity.state_message or AWAKE}",
            after.updated_at if at is None else at,
        )
        for entity in after.active.entities
        if entity.state_message != was.get(entity.name)
    ]


def _has_ended(before: Endpoint | None, after: Endpoint) -> bool:
    if after.config_update is ConfigUpdate.IN_PROGRESS or after.last_config_version == 0:
        return False
    return (
        before is None
        or before.config_update is ConfigUpdate.IN_PROGRESS
        or before.last_config_version != after.last_config_version
    )


def _version(endpoint: Endpoint | None) -> int | None:
    active = None if endpoint is None else endpoint.active
    return None if active is None else active.config_version


def _which(endpoint: Endpoint) -> str:
    return f"endpoint {endpoint.name}, config version {endpoint.last_config_version}"


def _update(endpoint: Endpoint, message: str) -> Event:
    return Event(
        endpoint_id=endpoint.id,
        at=endpoint.updated_at,
        type=ENDPOINT_UPDATE,
        status=endpoint.config_update.value,
        message=message,
        config_version=endpoint.last_config_version or None,
    )


def _pending(endpoint: Endpoint) -> Where:
    return Where(endpoint.id, endpoint.last_config_version)


def _replicas(number: int) -> str:
    return "replica" if number == 1 else "replicas"


def _about_active(endpoint: Endpoint, entity: ServedEntity, text: str, at: float) -> Event:
    assert endpoint.active is not None
    where = Where(endpoint.id, endpoint.active.config_version)
    return _about(where, entity, f"Served entity {entity.name}: {text}", at)


def _about(where: Where, entity: ServedEntity, message: str, at: float) -> Event:
    return Event(
        endpoint_id=where.endpoint_id,
        at=at,
        type=CONTAINER,
        status=entity.state.value,
        message=message,
        config_version=where.config_version,
    )
