"""The state machine of an endpoint (facts/control_plane §3): pure steps from record to record.

Nobody else may change `config_update`, `active`, `pending` or the state of a served entity.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from servemu.errors import InvalidParameter, UpdateInProgress
from servemu.lifecycle.fates import CREATING, Failure
from servemu.lifecycle.timeline import MESSAGES
from servemu_state.records import (
    ConfigUpdate,
    Deployment,
    Endpoint,
    EntityState,
    JsonObject,
    Route,
    ServedEntity,
)

TRANSITIONS: Mapping[ConfigUpdate, frozenset[ConfigUpdate]] = {
    ConfigUpdate.NOT_UPDATING: frozenset({ConfigUpdate.IN_PROGRESS, ConfigUpdate.NOT_UPDATING}),
    ConfigUpdate.IN_PROGRESS: frozenset({ConfigUpdate.NOT_UPDATING, ConfigUpdate.UPDATE_FAILED}),
    ConfigUpdate.UPDATE_FAILED: frozenset({ConfigUpdate.IN_PROGRESS, ConfigUpdate.NOT_UPDATING}),
    ConfigUpdate.UPDATE_CANCELED: frozenset({ConfigUpdate.IN_PROGRESS, ConfigUpdate.NOT_UPDATING}),
}
"""To NOT_UPDATING without an update: the endpoint is stopped."""

ENTITY_TRANSITIONS: Mapping[EntityState, frozenset[EntityState]] = {
    EntityState.CREATING: frozenset(
        {EntityState.READY, EntityState.FAILED, EntityState.ABORTED, EntityState.CREATING}
    ),
    EntityState.READY: frozenset({EntityState.STOPPED, EntityState.READY, EntityState.RECOVERING}),
    EntityState.RECOVERING: frozenset({EntityState.READY, EntityState.STOPPED}),
}
"""All others are ends: what is started again are new entities of a new config version."""

STOPPED = "Stopped"
"""`deployment_state_message` (facts/control_plane §3)."""


@dataclass(frozen=True, slots=True)
class Config:
    """What a config version deploys, checked and with its defaults."""

    entities: tuple[ServedEntity, ...]
    routes: tuple[Route, ...]
    task: str | None = None
    auto_capture: JsonObject | None = None
    """The legacy inference table, as it is echoed."""


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
    if config.auto_capture is not None:
        accepted = _with_setting(accepted, "auto_capture_config", config.auto_capture)
    return accepted if endpoint.active is not None else _with_task(accepted, config.task)


def with_fault(endpoint: Endpoint, fault: JsonObject | None) -> Endpoint:
    """The pending deployment has drawn this lifecycle fault, or none."""
    return replace(endpoint, pending=replace(_pending(endpoint), fault=fault))


def enter_stage(endpoint: Endpoint, stage: int, message: str, due_at: float) -> Endpoint:
    """The pending deployment reached a stage, which ends at `due_at`."""
    pending = _pending(endpoint)
    entities = tuple(enter(e, EntityState.CREATING, message) for e in pending.entities)
    return replace(
        endpoint, pending=replace(pending, stage=stage, due_at=due_at, entities=entities)
    )


def succeed(
    endpoint: Endpoint, now: float, task: str | None = None, idle_at: float | None = None
) -> Endpoint:
    """The pending config takes over, and the endpoint does its task from now on.

    `idle_at`: when it scales to zero unless somebody asks; None: it never does.
    """
    pending = _pending(endpoint)
    entities = tuple(enter(entity, EntityState.READY, "") for entity in pending.entities)
    return replace(
        _with_task(_move(endpoint, ConfigUpdate.NOT_UPDATING, now), task),
        active=replace(pending, entities=entities, due_at=idle_at, fault=None),
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
        enter(entity, failure.state, failure.message)
        for entity in pending.entities
        for failure in [failures.get(entity.name, aborted)]
    )
    return replace(
        _move(endpoint, ConfigUpdate.UPDATE_FAILED, now),
        pending=replace(pending, entities=entities, due_at=None),
    )


def recover(endpoint: Endpoint, until: float) -> Endpoint:
    """A replica of what serves was lost; it is back at `until` (message GUESS)."""
    assert endpoint.active is not None, endpoint.name
    entities = tuple(
        enter(entity, EntityState.RECOVERING, "Recovering") for entity in endpoint.active.entities
    )
    return replace(endpoint, active=replace(endpoint.active, entities=entities, due_at=until))


def recovered(endpoint: Endpoint, idle_at: float | None) -> Endpoint:
    """What was recovering serves again."""
    assert endpoint.active is not None, endpoint.name
    entities = tuple(enter(e, EntityState.READY, "") for e in endpoint.active.entities)
    return replace(endpoint, active=replace(endpoint.active, entities=entities, due_at=idle_at))


def is_recovering(endpoint: Endpoint) -> bool:
    active = endpoint.active
    return active is not None and active.entities[0].state is EntityState.RECOVERING


def stop(endpoint: Endpoint, now: float) -> Endpoint:
    """Nothing answers any more; the config stays. A failed update is forgotten (GUESS).

    Raises `UpdateInProgress`, `InvalidParameter` when there is nothing to stop (texts GUESS).
    """
    if endpoint.config_update is ConfigUpdate.IN_PROGRESS:
        raise UpdateInProgress
    if endpoint.active is None:
        raise InvalidParameter(f"Endpoint '{endpoint.name}' has nothing deployed to stop.")
    if is_stopped(endpoint):
        return endpoint
    entities = tuple(enter(e, EntityState.STOPPED, STOPPED) for e in endpoint.active.entities)
    return replace(
        _move(endpoint, ConfigUpdate.NOT_UPDATING, now),
        active=replace(endpoint.active, entities=entities, due_at=None),
        pending=None,
    )


def stopped_config(endpoint: Endpoint, now: float) -> Config:
    """What a start brings up again, as a new version (facts/control_plane §3).

    Raises `UpdateInProgress`, `InvalidParameter` when it is not stopped (text GUESS).
    """
    if endpoint.config_update is ConfigUpdate.IN_PROGRESS:
        raise UpdateInProgress
    if endpoint.active is None or not is_stopped(endpoint):
        raise InvalidParameter(f"Endpoint '{endpoint.name}' is not stopped.")
    return fresh(endpoint.active, now)


def is_stopped(endpoint: Endpoint) -> bool:
    active = endpoint.active
    return active is not None and all(e.state is EntityState.STOPPED for e in active.entities)


def fresh(deployment: Deployment, now: float) -> Config:
    """Its config once more, to be deployed."""
    entities = tuple(
        replace(
            entity,
            state=EntityState.CREATING,
            state_message=MESSAGES[CREATING],
            created_at=now,
            replicas=None,
        )
        for entity in deployment.entities
    )
    return Config(entities, deployment.routes)


def enter(entity: ServedEntity, state: EntityState, message: str) -> ServedEntity:
    """The served entity in its next state."""
    assert state in ENTITY_TRANSITIONS[entity.state], (entity.name, entity.state, state)
    return replace(entity, state=state, state_message=message)


def _move(endpoint: Endpoint, to: ConfigUpdate, now: float) -> Endpoint:
    assert to in TRANSITIONS[endpoint.config_update], (endpoint.config_update, to)
    return replace(endpoint, config_update=to, updated_at=now)


def _with_task(endpoint: Endpoint, task: str | None) -> Endpoint:
    """A custom model's is not shown: GUESS."""
    if task is None or task == "custom":
        return endpoint
    return _with_setting(endpoint, "task", task)


def _with_setting(endpoint: Endpoint, key: str, value: object) -> Endpoint:
    return replace(endpoint, settings={**endpoint.settings, key: value})


def _pending(endpoint: Endpoint) -> Deployment:
    assert endpoint.pending is not None, endpoint.name
    return endpoint.pending
