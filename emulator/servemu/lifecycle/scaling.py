"""Autoscaling of what serves: when to look at the load of an entity, and what comes of it.

The decisions are `throughput.autoscaler`'s. An entity without load is not looked at, unless
replicas of it are on their way or about to go. Load is measured in real time, as tokens are;
delays run on the workspace's clock, over the speedup.
"""

from dataclasses import dataclass, replace

from servemu.catalog import CatalogModel, provisioned_rate
from servemu.clock import Clock
from servemu.lifecycle import history
from servemu.lifecycle.agenda import Moment
from servemu.lifecycle.budgets import Budgets, bounds_of, may_scale, standing_replicas
from servemu.lifecycle.deployments import Deployments
from servemu.lifecycle.due_times import DueTimes, Key
from servemu.lifecycle.sleeping import is_scaled_to_zero
from servemu.registry.lookup import ModelLookup
from servemu.settings import Settings
from servemu.throughput import autoscaler
from servemu.throughput.autoscaler import NO_LOAD, WINDOW_SECONDS, Load, Scale, Standing, scale_of
from servemu.throughput.budget import TokenBudget
from servemu_state import endpoints, events
from servemu_state.records import Endpoint, EntityState, ServedEntity

SHORTEST_WINDOW = 1.0
"""Seconds that load is measured over: in less, a single payment looks like a load."""


@dataclass(slots=True)
class Watched:
    """A served entity that was asked for something lately, or stands above its minimum."""

    workspace: str
    scale: Scale
    budget: TokenBudget
    standing: Standing
    counted: tuple[float, int] = (0.0, 0)
    """Tokens paid and requests refused when it was last seen with a load."""
    loaded_at: float = 0.0
    """When that was, on the workspace's clock."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """Of a served entity, for people."""

    current: int
    minimum: int
    maximum: int
    starting: int


class Scaling:
    """Moves replicas, and the budgets with them."""

    def __init__(
        self,
        deployments: Deployments,
        models: ModelLookup,
        budgets: Budgets,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._deployments = deployments
        self._models = models
        self._budgets = budgets
        self._clock = clock
        self._settings = settings
        self._watched: dict[Key, Watched] = {}
        self._due = DueTimes(deployments.workspaces.real_time)
        self._window = max(SHORTEST_WINDOW, WINDOW_SECONDS / settings.speedup)
        with deployments.db.read() as connection:
            scaled = endpoints.list_scaled(connection)
        for endpoint in scaled:
            self.resume(endpoint)

    def resume(self, endpoint: Endpoint) -> None:
        """Its record came from elsewhere: what stands above its minimum is looked at again."""
        for entity in [] if endpoint.active is None else endpoint.active.entities:
            model = self._models.of(entity)
            if entity.replicas is not None and model is not None:
                self.demanded(endpoint, entity, model)

    def demanded(self, endpoint: Endpoint, entity: ServedEntity, model: CatalogModel) -> None:
        """A request came for the entity: it is looked at in a while, if it may scale."""
        if not self._settings.autoscaling or not may_scale(entity, model):
            return
        key = endpoint.id, entity.name
        budget = self._budgets.of(endpoint, entity, model)
        standing = standing_replicas(entity, model)
        watched = self._watched.get(key)
        if watched is None or watched.budget is not budget or watched.standing.replicas != standing:
            assert standing is not None
            scale = self._scale(entity, model)
            watched = Watched(endpoint.workspace, scale, budget, Standing(standing))
            self._watched[key] = watched
        look_at = self._now(endpoint.workspace) + watched.scale.decision_seconds
        due = self._due.of(key)
        if due is None or due > look_at:
            self._due.put(endpoint.workspace, key, look_at)
            self._deployments.changed.set()

    def first(self) -> float | None:
        """When to look next, on the machine's clock; None: nothing is to come."""
        first = self._due.first()
        return None if first is None else first[0]

    def look(self) -> Moment:
        """Decide about the entity that is due first. Answers where and when."""
        first = self._due.first()
        assert first is not None
        key = first[1]
        at, watched = self._due.of(key), self._watched[key]
        assert at is not None
        serving = self._serving(key, watched)
        if serving is None:
            self._drop(key, watched)
            return watched.workspace, at
        endpoint, entity = serving
        load, is_loaded = self._load(watched, at)
        before, room = watched.standing, self._room(endpoint, entity)
        watched.standing = after = autoscaler.decide(before, watched.scale, load, at, room)
        if after.replicas != before.replicas:
            moved = before.replicas, after.replicas
            self._deployments.scaled(
                _with_replicas(endpoint, entity, after.replicas),
                history.scaled(endpoint, entity, moved, at),
            )
            watched.budget.set_rate(after.replicas * watched.scale.replica_rate)
        if after.is_short and not before.is_short:
            self._note_shortage(endpoint, entity, after, at)
        self._due.put(watched.workspace, key, self._next(watched, at, is_loaded=is_loaded))
        return watched.workspace, at

    def forget(self, endpoint_id: str) -> None:
        """The endpoint is gone."""
        for key in [key for key in self._watched if key[0] == endpoint_id]:
            self._drop(key, self._watched[key])

    def forget_all(self, workspace: str) -> None:
        """All endpoints of the workspace are gone."""
        for key, watched in list(self._watched.items()):
            if watched.workspace == workspace:
                self._drop(key, watched)

    def replicas(
        self, endpoint: Endpoint, entity: ServedEntity, model: CatalogModel
    ) -> Replicas | None:
        """How many there are; 0 of what is scaled to zero. None: it is not provisioned."""
        bounds = bounds_of(entity, model)
        current = standing_replicas(entity, model, autoscaling=self._settings.autoscaling)
        if bounds is None or current is None:
            return None
        watched = self._watched.get((endpoint.id, entity.name))
        starting = 0 if watched is None else watched.standing.num_starting
        return Replicas(0 if is_scaled_to_zero(entity) else current, *bounds, starting)

    def _serving(self, key: Key, watched: Watched) -> tuple[Endpoint, ServedEntity] | None:
        """The record of now; None: the entity does not serve, or is no longer the one watched."""
        endpoint_id, name = key
        with self._deployments.db.read() as connection:
            endpoint = endpoints.get_by_id(connection, watched.workspace, endpoint_id)
        if endpoint is None or endpoint.active is None:
            return None
        entity = next((one for one in endpoint.active.entities if one.name == name), None)
        if entity is None or entity.state is not EntityState.READY or is_scaled_to_zero(entity):
            return None
        if self._budgets.find(endpoint, name) is not watched.budget:
            return None
        return endpoint, entity

    def _load(self, watched: Watched, at: float) -> tuple[Load, bool]:
        """What was measured, and whether there is anything to measure."""
        budget, meter = watched.budget, watched.budget.meter
        assert budget.queue is not None
        counted = meter.paid, meter.refused
        if budget.in_flight or counted != watched.counted:
            watched.counted, watched.loaded_at = counted, at
        elif at - watched.loaded_at >= self._window:  # also where only the workspace's clock moved
            return NO_LOAD, False
        now = self._clock.monotonic()
        return autoscaler.measure(meter, budget.queue, now, self._window), True

    def _next(self, watched: Watched, at: float, *, is_loaded: bool) -> float | None:
        """A look that comes late is not followed by all those that were left out meanwhile."""
        due = autoscaler.due(watched.standing, watched.scale, at, is_loaded=is_loaded)
        decision = at + watched.scale.decision_seconds
        if due == decision and watched.budget.in_flight:
            return max(due, self._now(watched.workspace))
        return due

    def _room(self, endpoint: Endpoint, entity: ServedEntity) -> int | None:
        pool, workspace = self._deployments.pool, endpoint.workspace
        with self._deployments.db.read() as connection:
            others = endpoints.list_all(connection, workspace)
            return pool.room(connection, endpoint, entity, others, self._now(workspace))

    def _note_shortage(
        self, endpoint: Endpoint, entity: ServedEntity, standing: Standing, at: float
    ) -> None:
        kind = self._deployments.pool.workload_type(entity)
        most = standing.replicas + standing.num_starting
        with self._deployments.db.write() as connection:
            events.append(connection, history.fell_short(endpoint, entity, most, kind, at))

    def _now(self, workspace: str) -> float:
        return self._deployments.workspaces.now(workspace)

    def _drop(self, key: Key, watched: Watched) -> None:
        del self._watched[key]
        self._due.put(watched.workspace, key, None)

    def _scale(self, entity: ServedEntity, model: CatalogModel) -> Scale:
        bounds = bounds_of(entity, model)
        assert bounds is not None
        rate = provisioned_rate(1, model) * self._settings.throughput_scale
        return scale_of(model.family, bounds, rate, self._settings.speedup)


def _with_replicas(endpoint: Endpoint, entity: ServedEntity, replicas: int) -> Endpoint:
    assert endpoint.active is not None
    moved = replace(entity, replicas=replicas)
    entities = tuple(moved if one.name == moved.name else one for one in endpoint.active.entities)
    return replace(endpoint, active=replace(endpoint.active, entities=entities))
