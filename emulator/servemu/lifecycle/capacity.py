"""The GPU pool of a workspace: what deployments take from it, and whether there is enough.

Unlimited unless the setting `capacity` or a fault rule with the effect `shrink` says otherwise. An
update holds both its configs' replicas until it is over, as the old one goes on serving.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from servemu.catalog import replicas, unit_replicas
from servemu.faults.ledger import Armed, Faults
from servemu.faults.rules import Occasion, next_change
from servemu.lifecycle.fates import CREATING, LOADING, WAITING
from servemu.registry.lookup import ModelLookup
from servemu.schemas.effects import Shrink
from servemu_state.database import Connection
from servemu_state.records import Deployment, Endpoint, EntityState, ServedEntity

WITHOUT = frozenset({EntityState.FAILED, EntityState.ABORTED, EntityState.STOPPED})
"""States in which an entity holds no replica."""


@dataclass(frozen=True, slots=True)
class Shortage:
    """There are not enough replicas."""

    workload_type: str
    until: float | None
    """When a rule that is to blame changes, on the workspace's clock; None: nobody knows."""


class Pool:
    """Counts replicas by workload type."""

    def __init__(self, models: ModelLookup, faults: Faults, sizes: Mapping[str, int]) -> None:
        self._models = models
        self._faults = faults
        self._sizes = sizes

    def need(self, deployment: Deployment) -> Counter[str]:
        """Replicas that the deployment holds or waits for, by workload type."""
        held: Counter[str] = Counter()
        for entity in deployment.entities:
            model = self._models.of(entity)
            if model is not None and entity.state not in WITHOUT:
                workload: str = entity.settings.get("workload_type", model.family.workload_type)
                held[workload] += self._replicas(entity)
        return held

    def shortage(
        self, connection: Connection, endpoint: Endpoint, others: Sequence[Endpoint], now: float
    ) -> Shortage | None:
        """Why the pending config of `endpoint` cannot come up now. `others`: all of the workspace.

        A rule counts the deployment when it is asked for the first time.
        """
        assert endpoint.pending is not None
        need = self.need(endpoint.pending)
        rules = self._rules(connection, endpoint, now)
        globs = [*self._sizes, *(_shrink(rule).workload_type for rule in rules)]
        limited = [kind for kind in need if any(fnmatchcase(kind, glob) for glob in globs)]
        if not limited:
            return None
        used = self._used(endpoint, others)
        for kind in limited:
            if kind in self._sizes and used[kind] + need[kind] > self._sizes[kind]:
                return Shortage(kind, None)
            for rule in rules:
                effect = _shrink(rule)
                if fnmatchcase(kind, effect.workload_type) and (
                    used[kind] + need[kind] > effect.replicas
                    and self._holds(connection, endpoint, rule, now)
                ):
                    return Shortage(kind, next_change(rule.rule, rule.created_at, now))
        return None

    def room(
        self,
        connection: Connection,
        endpoint: Endpoint,
        entity: ServedEntity,
        others: Sequence[Endpoint],
        now: float,
    ) -> int | None:
        """Replicas that `entity` of the active config could still get; None: no limit. Rules are
        looked at, not counted."""
        kind = self.workload_type(entity)
        limits = [size for name, size in self._sizes.items() if name == kind]
        for rule in self._rules(connection, endpoint, now):
            effect = _shrink(rule)
            if fnmatchcase(kind, effect.workload_type):
                limits.append(effect.replicas)
        if not limits:
            return None
        used = self._used(endpoint, others)
        if endpoint.pending is not None and endpoint.pending.stage == LOADING:
            used += self.need(endpoint.pending)
        return max(0, min(limits) - used[kind])

    def workload_type(self, entity: ServedEntity) -> str:
        """The kind of replica that the entity takes."""
        model = self._models.of(entity)
        given: str | None = entity.settings.get("workload_type")
        return given or ("CPU" if model is None else model.family.workload_type)

    def _used(self, endpoint: Endpoint, others: Sequence[Endpoint]) -> Counter[str]:
        used: Counter[str] = Counter()
        for other in others:
            if other.active is not None:
                used += self.need(other.active)
            pending = other.pending
            if pending is not None and other.id != endpoint.id and pending.stage == LOADING:
                used += self.need(pending)
        return used

    def _rules(self, connection: Connection, endpoint: Endpoint, now: float) -> list[Armed]:
        live = self._faults.live(connection, _occasion(endpoint, now))
        return [armed for armed in live if isinstance(armed.rule.effect, Shrink)]

    def _holds(self, connection: Connection, endpoint: Endpoint, rule: Armed, now: float) -> bool:
        assert endpoint.pending is not None
        if endpoint.pending.stage != CREATING:
            return True
        return self._faults.count(connection, _occasion(endpoint, now), rule)

    def _replicas(self, entity: ServedEntity) -> int:
        """What autoscaling brought it to, or what has to be there for it to come up: its least, and
        one where that is nothing."""
        if entity.replicas is not None:
            return entity.replicas
        model = self._models.of(entity)
        least = entity.min_provisioned_throughput or 0
        units: int | None = entity.settings.get("provisioned_model_units")
        if model is None or (not least and units is None):
            return 1
        if units is not None and model.takes_model_units:
            return unit_replicas(model, units)
        return max(1, replicas(least, model.chunk)) if model.chunk else 1


def waits(endpoint: Endpoint) -> bool:
    """Its pending config waits for GPU replicas."""
    pending = endpoint.pending
    return pending is not None and pending.stage == WAITING and pending.due_at is not None


def due(shortage: Shortage, give_up: float) -> float:
    """When to look again, at the latest."""
    return min(give_up, math.inf if shortage.until is None else shortage.until)


def _shrink(armed: Armed) -> Shrink:
    assert isinstance(armed.rule.effect, Shrink)
    return armed.rule.effect


def _occasion(endpoint: Endpoint, now: float) -> Occasion:
    is_new = endpoint.last_config_version == 1
    return Occasion(
        workspace=endpoint.workspace,
        operation=f"serving-endpoints.{'create' if is_new else 'update_config'}",
        endpoint=endpoint.name,
        phase="capacity",
        now=now,
    )
