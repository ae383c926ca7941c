"""What a lifecycle fault does to the deployment that drew it: how long it takes, how it ends.

Stored with the deployment as `{"rule": id, "effect": {…}}`, so it holds over a restart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from servemu.schemas.effects import (
    BuildFailed,
    Effect,
    LoadFailed,
    NoCapacity,
    Partial,
    Shrink,
    Slow,
    TimeOut,
)
from servemu_state.records import Deployment, EntityState

CREATING = 0
LOADING = 1
WAITING = 2
"""For GPU replicas of the workspace's pool; looks like `CREATING`."""

NO_CAPACITY = (
    "Served entity creation aborted because the resource did not become available in time."
)
"""What a deployment without GPU capacity ends with (facts/provisioned_throughput §5, C1)."""
TIMED_OUT = (
    "Served model creation aborted because the endpoint update timed out. "
    "Please see service logs for more information."
)
"""OBS (facts/provisioned_throughput §4)."""
BUILD_FAILED = "Container creation failed."
"""GUESS after `Container creation pending.`, which is real (§5, C6)."""
BUILD_PENDING = "Container creation pending."
SERVER_START_LIMITS: Mapping[str, timedelta] = {
    "CPU": timedelta(minutes=30),
    "GPU_SMALL": timedelta(minutes=60),
    "GPU_MEDIUM": timedelta(minutes=60),
}
"""Until a model server that does not start is given up (§4); 120 min for the others."""

_EFFECT: TypeAdapter[Effect] = TypeAdapter(Effect, config=ConfigDict(defer_build=True))


@dataclass(frozen=True, slots=True)
class Failure:
    """How a served entity ended."""

    state: EntityState
    message: str


def effect_of(deployment: Deployment) -> Effect | None:
    """The fault that the deployment drew."""
    fault: Mapping[str, Any] | None = deployment.fault
    return None if fault is None else _EFFECT.validate_python(dict(fault["effect"]))


def stage_seconds(deployment: Deployment, stage: int, workload_type: str) -> float | None:
    """Real seconds of a stage that the fault draws out; None: as long as ever."""
    effect = effect_of(deployment)
    if stage == CREATING and isinstance(effect, NoCapacity | BuildFailed | Slow):
        return None if effect.after is None else effect.after.total_seconds()
    if stage == LOADING and isinstance(effect, TimeOut):
        limit = SERVER_START_LIMITS.get(workload_type, timedelta(minutes=120))
        return (effect.after or limit).total_seconds()
    return None


def waits_for_capacity(deployment: Deployment) -> bool:
    """Its first stage is the wait for a replica."""
    return isinstance(effect_of(deployment), NoCapacity)


def message(deployment: Deployment, stage: int, usual: str) -> str:
    """`deployment_state_message` of a stage."""
    building = stage == CREATING and isinstance(effect_of(deployment), BuildFailed)
    return BUILD_PENDING if building else usual


def loads(deployment: Deployment) -> bool:
    """Its weights are really loaded: no fault ends it before."""
    return not isinstance(effect_of(deployment), TimeOut | LoadFailed | Partial)


def failures(deployment: Deployment, stage: int) -> dict[str, Failure]:
    """How the fault ends the deployment after this stage, by served entity; empty: it does not."""
    effect = effect_of(deployment)
    names = [entity.name for entity in deployment.entities]
    if stage == CREATING:
        match effect:
            case NoCapacity():
                return dict.fromkeys(names, Failure(EntityState.ABORTED, NO_CAPACITY))
            case BuildFailed():
                return dict.fromkeys(names, Failure(EntityState.FAILED, BUILD_FAILED))
        return {}
    match effect:
        case TimeOut():
            return dict.fromkeys(names, Failure(EntityState.ABORTED, TIMED_OUT))
        case LoadFailed():
            return dict.fromkeys(names, Failure(EntityState.FAILED, effect.message))
        case Partial():
            failing = effect.entity if effect.entity in names else names[-1]
            return {failing: Failure(EntityState.FAILED, effect.message)}
    return {}


def log_of(deployment: Deployment) -> str:
    """What the service log says of it."""
    effect = effect_of(deployment)
    return effect.log if isinstance(effect, LoadFailed) else ""


def build_attempts(deployment: Deployment) -> int:
    """How often its image was tried in vain."""
    effect = effect_of(deployment)
    return effect.attempts if isinstance(effect, BuildFailed) else 0


def is_held_by_pool(deployment: Deployment) -> bool:
    return isinstance(effect_of(deployment), Shrink)
