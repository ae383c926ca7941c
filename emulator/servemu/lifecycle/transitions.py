"""The state machine of an endpoint (facts/control_plane §3): pure steps from record to record.

Nobody else may change `config_update`, `active`, `pending` or the state of a served entity.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from servemu.errors import UpdateInProgress
from servemu_state.records import (
    ConfigUpdate,
    Deployment,
    Endpoint,
    EntityState,
    Route,
    ServedEntity,
)

TRANSITIONS: Mapping[ConfigUpdate, frozenset[ConfigUpdate]] = {
    ConfigUpdate.NOT_UPDATING: frozenset({ConfigUpdate.IN_PROGRESS}),
    ConfigUpdate.IN_PROGRESS: frozenset({ConfigUpdate.NOT_UPDATING, ConfigUpdate.UPDATE_FAILED}),
    ConfigUpdate.UPDATE_FAILED: frozenset({ConfigUpdate.IN_PROGRESS}),
    ConfigUpdate.UPDATE_CANCELED: frozenset({ConfigUpdate.IN_PROGRESS}),
}


@dataclass(frozen=True, slots=True)
class Config:
    """What a config version deploys, checked and with its defaults."""

    entities: tuple[ServedEntity, ...]
    routes: tuple[Route, ...]
    task: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """How a served entity ended."""

    state: EntityState
    message: str


def accept(endpoint: Endpoint, config: Config, now: float) -> Endpoint:
    """A new config version starts to come up; what serves now goes on serving.

    Raises `UpdateInProgress` while another one does.
    """
    if endpoint.config_update is ConfigUpdate.IN_PROGRESS:
        raise UpdateInProgress
    version = endpoint.last_config_version + 1
    pending = Deployment(version, config.entities, config.routes, started_at=now, due_at=now)
    accepted = replace(
        _move(endpoint, ConfigUpdate.IN_PROGRESS, now), last_config_version=version, pending=pending
    )
    return accepted if endpoint.active is not None else _with_task(accepted, config.task)


def enter_stage(endpoint: Endpoint, stage: int, message: str, due_at: float) -> Endpoint:
    """The pending deployment reached a stage, which ends at `due_at`."""
    pending = _pending(endpoint)
    entities = tuple(replace(entity, state_message=message) for entity in pending.entities)
    return replace(
        endpoint, pending=replace(pending, stage=stage, due_at=due_at, entities=entities)
    )


def succeed(endpoint: Endpoint, now: float, task: str | None = None) -> Endpoint:
    """The pending config takes over, and the endpoint does its task from now on."""
    pending = _pending(endpoint)
    entities = tuple(
        replace(entity, state=EntityState.READY, state_message="") for entity in pending.entities
    )
    return replace(
        _with_task(_move(endpoint, ConfigUpdate.NOT_UPDATING, now), task),
        active=replace(pending, entities=entities, due_at=None, fault=None),
        pending=None,
    )


def fail(endpoint: Endpoint, failures: Mapping[str, Failure], now: float) -> Endpoint:
    """The pending config stays pending, for people to see; the active one serves on.

    `failures` by served entity; the entities without one are aborted, because another entity of
    the same config version failed (databricks-sdk `ServedModelStateDeployment`).
    """
    pending = _pending(endpoint)
    aborted = Failure(
        EntityState.ABORTED,
        "Served entity creation aborted because another served entity of the same config failed.",
    )
    entities = tuple(
        replace(entity, state=failure.state, state_message=failure.message)
        for entity in pending.entities
        for failure in [failures.get(entity.name, aborted)]
    )
    return replace(
        _move(endpoint, ConfigUpdate.UPDATE_FAILED, now),
        pending=replace(pending, entities=entities, due_at=None),
    )


def _move(endpoint: Endpoint, to: ConfigUpdate, now: float) -> Endpoint:
    assert to in TRANSITIONS[endpoint.config_update], (endpoint.config_update, to)
    return replace(endpoint, config_update=to, updated_at=now)


def _with_task(endpoint: Endpoint, task: str | None) -> Endpoint:
    if task is None:
        return endpoint
    return replace(endpoint, settings={**endpoint.settings, "task": task})


def _pending(endpoint: Endpoint) -> Deployment:
    assert endpoint.pending is not None, endpoint.name
    return endpoint.pending
