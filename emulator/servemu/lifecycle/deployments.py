"""The single writer of endpoint state: each call is one transaction from one record to the next."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

from servemu.errors import EndpointExists, EndpointNotFound
from servemu.faults.ledger import Faults, Fired
from servemu.faults.rules import Occasion
from servemu.lifecycle import history, mishaps, sleeping, transitions
from servemu.lifecycle.agenda import Agenda, Key, key_of
from servemu.lifecycle.calls import Call
from servemu.lifecycle.capacity import Pool, Shortage, due, waits
from servemu.lifecycle.fates import NO_CAPACITY, WAITING, Failure
from servemu.lifecycle.timeline import MESSAGES, Timeline
from servemu.lifecycle.transitions import Config
from servemu.workspace import Workspaces
from servemu_engine.base import EngineInfo
from servemu_state import endpoints, events
from servemu_state.database import Connection, Database
from servemu_state.errors import EndpointGone
from servemu_state.records import (
    Deployment,
    Endpoint,
    EntityState,
    Event,
    ServedEntity,
)

Step = Callable[[Endpoint, float], Endpoint]
"""From the record and the workspace's time to the next record."""


class Deployments:
    """Endpoints of all workspaces: reads, accepts changes, moves deployments on."""

    def __init__(
        self,
        db: Database,
        workspaces: Workspaces,
        faults: Faults,
        timeline: Timeline,
        pool: Pool,
    ) -> None:
        self.db = db
        self.workspaces = workspaces
        self._faults = faults
        self._timeline = timeline
        self.pool = pool
        with db.read() as connection:
            to_come = endpoints.list_due(connection)
        self.agenda = Agenda(workspaces, to_come)
        self._waiting = {endpoint.id: endpoint for endpoint in to_come if waits(endpoint)}
        """By id: those whose deployment waits for GPU replicas."""
        self._last_asked: dict[Key, float] = {}
        """On the workspace's clock; only of those that scale to zero."""
        self._awake: dict[Key, asyncio.Event] = {}
        """What requests to a sleeping endpoint wait for."""
        self.changed = asyncio.Event()
        """Set when a due time was added or taken away."""

    def get(self, workspace: str, name: str) -> Endpoint:
        """Raises `EndpointNotFound`."""
        with self.db.read() as connection:
            return _existing(connection, workspace, name)

    def find(self, workspace: str, name: str) -> Endpoint | None:
        """The same, or None."""
        with self.db.read() as connection:
            return endpoints.get(connection, workspace, name)

    def list_all(self, workspace: str) -> list[Endpoint]:
        with self.db.read() as connection:
            return endpoints.list_all(connection, workspace)

    def count(self, workspace: str) -> int:
        with self.db.read() as connection:
            return endpoints.count(connection, workspace)

    def create(self, call: Call, endpoint: Endpoint, config: Config | None) -> Endpoint:
        """Store a new endpoint, and start to deploy its config. Raises `EndpointExists`."""
        with self.db.write() as connection:
            if endpoints.get(connection, call.workspace, endpoint.name) is not None:
                raise EndpointExists(endpoint.name)
            with self._tags(connection, endpoint):
                if config is not None:
                    endpoint = self._accept(connection, call, endpoint, config)
                endpoints.insert(connection, endpoint)
                _note(connection, None, endpoint)
        self._track(endpoint)
        return endpoint

    def update_config(
        self, call: Call, name: str, config: Config, *, at_once: bool = False
    ) -> Endpoint:
        """Start to deploy a new config version. Raises `EndpointNotFound`, `UpdateInProgress`.

        `at_once`: it serves when this returns, if what serves now serves the same models.
        """
        with self.db.write() as connection:
            before = endpoint = _existing(connection, call.workspace, name)
            same = endpoint.active is not None and _models(endpoint.active) == _models(config)
            endpoint = self._accept(connection, call, endpoint, config)
            assert endpoint.pending is not None
            if at_once and same and endpoint.pending.fault is None:
                endpoint = self._succeeded(endpoint, endpoint.pending.started_at)
            endpoints.save(connection, endpoint)
            _note(connection, before, endpoint)
        self._track(endpoint)
        return endpoint

    def stop(self, workspace: str, name: str) -> Endpoint:
        """Raises `EndpointNotFound`, `UpdateInProgress`, `InvalidParameter`."""
        return self.change(workspace, name, transitions.stop)

    def start(self, call: Call, name: str) -> Endpoint:
        """What was stopped comes up again. Raises as `stop`."""
        endpoint = self.get(call.workspace, name)
        now = self.workspaces.now(call.workspace)
        return self.update_config(call, name, transitions.stopped_config(endpoint, now))

    def change(self, workspace: str, name: str, step: Step) -> Endpoint:
        """One step of the record within one transaction. Raises `EndpointNotFound`, and what the
        step does.
        """
        with self.db.write() as connection:
            before = _existing(connection, workspace, name)
            endpoint = step(before, self.workspaces.now(workspace))
            if endpoint.tags != before.tags:
                with self._tags(connection, endpoint):
                    endpoints.save(connection, endpoint)
            elif endpoint != before:
                endpoints.save(connection, endpoint)
                _note(connection, before, endpoint)
        self._track(endpoint)
        return endpoint

    def delete(self, workspace: str, name: str) -> Endpoint:
        """Gone at once, also while an update runs (GUESS, facts/control_plane §3).

        Answers the last state. Raises `EndpointNotFound`.
        """
        with self.db.write() as connection:
            endpoint = _existing(connection, workspace, name)
            endpoints.delete(connection, endpoint.id)
            self._faults.untag(connection, endpoint)
        self._untrack(endpoint)
        self._let_in(endpoint)
        return endpoint

    def take_up(self, restored: Iterable[Endpoint]) -> None:
        """Their rows are there: go on with what is under way, as after a restart."""
        for endpoint in restored:
            self._track(endpoint)

    def forget(self, workspace: str) -> None:
        """Its endpoints are gone: nothing is to come, who waits for one looks again."""
        self.agenda.clear(workspace)
        for key in [key for key in self._last_asked if key[0] == workspace]:
            del self._last_asked[key]
        for endpoint in [one for one in self._waiting.values() if one.workspace == workspace]:
            del self._waiting[endpoint.id]
        for key in [key for key in self._awake if key[0] == workspace]:
            self._awake.pop(key).set()
        self.changed.set()

    def patch_tags(
        self, workspace: str, name: str, *, add: Mapping[str, str], drop: frozenset[str]
    ) -> Endpoint:
        """Set and remove tags; those that stay keep their order. Raises `EndpointNotFound`."""

        def step(endpoint: Endpoint, now: float) -> Endpoint:
            kept = {key: value for key, value in endpoint.tags if key not in drop}
            return replace(endpoint, tags=tuple({**kept, **add}.items()), updated_at=now)

        return self.change(workspace, name, step)

    async def wake(self, endpoint: Endpoint) -> None:
        """Bring up what was scaled to zero; returns when it is up, or changed, or gone."""
        awake = self._awake.get(key_of(endpoint))
        if awake is None:
            awake = self._awake[key_of(endpoint)] = asyncio.Event()
        active = endpoint.active
        assert active is not None
        if active.due_at is None:
            now = self.workspaces.now(endpoint.workspace)
            due_at = now + self._timeline.waking_seconds(active)
            self._save(sleeping.start_waking(endpoint, due_at))
        await awake.wait()

    def asked(self, endpoint: Endpoint) -> None:
        """Somebody sent a request: it stays awake for longer."""
        if endpoint.active is not None and endpoint.active.due_at is not None:
            self._last_asked[key_of(endpoint)] = self.workspaces.now(endpoint.workspace)

    def idle_time_is_over(self, endpoint: Endpoint) -> None:
        """The active config is due: asleep unless somebody asked meanwhile, awake if it woke."""
        active = endpoint.active
        assert active is not None and active.due_at is not None
        idle = self._timeline.idle_seconds()
        asked_at = self._last_asked.get(key_of(endpoint), 0.0)
        if transitions.is_recovering(endpoint):
            may_sleep = any(sleeping.scales_to_zero(entity) for entity in active.entities)
            self._save(transitions.recovered(endpoint, active.due_at + idle if may_sleep else None))
        elif any(sleeping.is_scaled_to_zero(entity) for entity in active.entities):
            # The request that woke it is served now, however far the clock was moved at once.
            awake_at = max(active.due_at, self.workspaces.now(endpoint.workspace))
            self._save(sleeping.stay_awake(endpoint, awake_at + idle))
        elif asked_at + idle > active.due_at:
            self._save(sleeping.stay_awake(endpoint, asked_at + idle))
        else:
            self._save(sleeping.scale_to_zero(endpoint))

    def scaled(self, endpoint: Endpoint, event: Event) -> None:
        """Replicas of what serves came or went; the endpoint may be gone."""
        with suppress(EndpointGone), self.db.write() as connection:
            endpoints.save(connection, endpoint)
            events.append(connection, event)
            self._track(endpoint)

    def enter_stage(self, endpoint: Endpoint, stage: int) -> None:
        """The next stage begins when the one before was due, however late anybody looked."""
        assert endpoint.pending is not None and endpoint.pending.due_at is not None
        due_at = endpoint.pending.due_at + self._timeline.seconds(endpoint.pending, stage)
        self._save(transitions.enter_stage(endpoint, stage, MESSAGES[stage], due_at))

    def may_load(self, endpoint: Endpoint, due_at: float) -> bool:
        """The pool has room for it. If not, it waits, and is aborted when it has waited enough."""
        pending = endpoint.pending
        assert pending is not None
        shortage = self._shortage(endpoint, due_at)
        if shortage is None:
            return True
        give_up = pending.started_at + self._timeline.seconds(pending, WAITING)
        if due_at >= give_up:
            self._abort_for_capacity(endpoint, due_at)
        else:
            look_at = due(shortage, give_up)
            self._save(transitions.enter_stage(endpoint, WAITING, MESSAGES[WAITING], look_at))
        return False

    def with_room(self, moment: tuple[str, float] | None = None) -> Iterator[Endpoint]:
        """Those that waited for replicas, and need not any more: due from now on, or in one
        workspace from the `moment` on at which something happened.
        """
        for endpoint in list(self._waiting.values()):
            pending = endpoint.pending
            assert pending is not None
            now = self.workspaces.now(endpoint.workspace)
            if moment is not None and endpoint.workspace == moment[0]:
                now = min(now, max(moment[1], pending.started_at))
            if self._shortage(endpoint, now) is None:
                yield replace(endpoint, pending=replace(pending, due_at=now))

    def _shortage(self, endpoint: Endpoint, now: float) -> Shortage | None:
        with self.db.write() as connection:
            others = endpoints.list_all(connection, endpoint.workspace)
            return self.pool.shortage(connection, endpoint, others, now)

    def befall(self, workspace: str, name: str, fired: Fired) -> None:
        """A fault happens to what serves. Nothing where nothing does."""
        with suppress(EndpointNotFound):
            self.change(workspace, name, partial(mishaps.befallen, self._timeline, fired))

    def succeed(self, endpoint: Endpoint, at: float) -> None:
        """The new config takes over: `at` that time, however late anybody looked."""
        self._save(self._succeeded(endpoint, at))

    def fail(self, endpoint: Endpoint, failures: Mapping[str, Failure], at: float) -> None:
        """The new config failed at that time; the old one serves on."""
        self._save(transitions.fail(endpoint, failures, self._until_now(endpoint, at)))

    def note_load(
        self,
        endpoint: Endpoint,
        entity: ServedEntity,
        outcome: EngineInfo | BaseException,
        at: float,
    ) -> None:
        """Into the history: what came of loading the entity's model. Nothing once it is gone."""
        at = self._until_now(endpoint, at)
        if isinstance(outcome, BaseException):
            event = history.not_loaded(endpoint, entity, outcome, at)
        else:
            event = history.loaded(endpoint, entity, outcome, at)
        with suppress(EndpointGone), self.db.write() as connection:
            events.append(connection, event)

    def history_of(self, endpoint: Endpoint, limit: int) -> list[Event]:
        """The last `limit` events, newest first."""
        with self.db.read() as connection:
            return events.list_newest(connection, endpoint.id, limit)

    def history_of_version(self, endpoint: Endpoint, config_version: int) -> list[Event]:
        """All events of one config version, oldest first."""
        with self.db.read() as connection:
            return events.list_of_version(connection, endpoint.id, config_version)

    def _abort_for_capacity(self, endpoint: Endpoint, at: float) -> None:
        """No GPU came free in time: every entity of the new config is aborted."""
        assert endpoint.pending is not None
        failure = Failure(EntityState.ABORTED, NO_CAPACITY)
        self.fail(endpoint, {entity.name: failure for entity in endpoint.pending.entities}, at)

    def _succeeded(self, endpoint: Endpoint, at: float) -> Endpoint:
        pending = endpoint.pending
        assert pending is not None
        at = self._until_now(endpoint, at)
        may_sleep = any(sleeping.scales_to_zero(entity) for entity in pending.entities)
        idle_at = at + self._timeline.idle_seconds() if may_sleep else None
        return transitions.succeed(endpoint, at, self._timeline.task(pending), idle_at)

    def _until_now(self, endpoint: Endpoint, at: float) -> float:
        return min(at, self.workspaces.now(endpoint.workspace))

    def _accept(
        self, connection: Connection, call: Call, endpoint: Endpoint, config: Config
    ) -> Endpoint:
        """Accept the config, draw its lifecycle fault, enter the first stage."""
        now = self.workspaces.now(call.workspace)
        endpoint = transitions.accept(endpoint, config, now)
        drawn = self._faults.draw(
            connection,
            Occasion(
                workspace=call.workspace,
                operation=call.operation,
                endpoint=endpoint.name,
                phase="lifecycle",
                now=now,
                request_id=call.request_id,
                headers=call.headers,
                states=() if call.exposure is None else call.exposure.occasion.states,
            ),
        )
        if call.exposure is not None:
            call.exposure.note(drawn)
        if not drawn:
            return mishaps.begin(self._timeline, endpoint, None)
        effect = drawn[0].rule.effect.model_dump(mode="json", exclude_none=True)
        return mishaps.begin(self._timeline, endpoint, {"rule": drawn[0].id, "effect": effect})

    @contextmanager
    def _tags(self, connection: Connection, endpoint: Endpoint) -> Iterator[None]:
        """The rule of its tag is there from now on, unless the transaction fails."""
        self._faults.follow_tags(connection, endpoint, self.workspaces.now(endpoint.workspace))
        try:
            yield
        except BaseException:
            self._faults.forget(endpoint.workspace)
            raise

    def _save(self, endpoint: Endpoint) -> None:
        with self.db.write() as connection:
            before = endpoints.get_by_id(connection, endpoint.workspace, endpoint.id)
            endpoints.save(connection, endpoint)
            _note(connection, before, endpoint)
        self._track(endpoint)

    def _track(self, endpoint: Endpoint) -> None:
        if self.agenda.put(endpoint) or self._waiting:
            self.changed.set()
        if waits(endpoint):
            self._waiting[endpoint.id] = endpoint  # keeps its place among those that wait
        else:
            self._waiting.pop(endpoint.id, None)
        if all(d is None or d.due_at is None for d in (endpoint.pending, endpoint.active)):
            self._last_asked.pop(key_of(endpoint), None)
        active = endpoint.active
        if active is None or not any(sleeping.is_scaled_to_zero(e) for e in active.entities):
            self._let_in(endpoint)

    def _untrack(self, endpoint: Endpoint) -> None:
        self.agenda.drop(endpoint.workspace, endpoint.id)
        self._waiting.pop(endpoint.id, None)
        self._last_asked.pop(key_of(endpoint), None)
        self.changed.set()

    def _let_in(self, endpoint: Endpoint) -> None:
        awake = self._awake.pop(key_of(endpoint), None)
        if awake is not None:
            awake.set()


def _models(config: Config | Deployment) -> set[str | None]:
    return {entity.entity_name for entity in config.entities}


def _existing(connection: Connection, workspace: str, name: str) -> Endpoint:
    endpoint = endpoints.get(connection, workspace, name)
    if endpoint is None:
        raise EndpointNotFound(name)
    return endpoint


def _note(connection: Connection, before: Endpoint | None, after: Endpoint) -> None:
    for event in history.events_between(before, after):
        events.append(connection, event)
