"""Moves deployments on when their time has come: sleeps until the next due time, never polls."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from servemu.clock import Clock
from servemu.lifecycle import fates
from servemu.lifecycle.agenda import Due, Moment
from servemu.lifecycle.deployments import Deployments
from servemu.lifecycle.fates import CREATING, LOADING, WAITING, Failure
from servemu.lifecycle.scaling import Scaling
from servemu_engine.base import EngineInfo
from servemu_engine.errors import LoadFailed
from servemu_state.errors import StateError
from servemu_state.records import Endpoint, EntityState, ServedEntity

RETRY_SECONDS = 5.0
"""After the state could not be written."""

log = logging.getLogger("servemu")

Load = Callable[[ServedEntity], EngineInfo]
"""Bring up the engine that serves the entity. Blocks; raises `LoadFailed`."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of loading a deployment."""

    failures: dict[str, Failure]
    """By served entity; empty: all are up."""
    at: float
    """When, on the workspace's clock, as if nobody had moved that meanwhile."""


Loading = asyncio.Task[Loaded]


class Reconciler:
    """Walks each deployment through its stages; the weights load during the last one."""

    def __init__(
        self, deployments: Deployments, scaling: Scaling, clock: Clock, load: Load
    ) -> None:
        self._deployments = deployments
        self._scaling = scaling
        self._clock = clock
        self._load = load
        self._loading: dict[tuple[str, str, int], Loading] = {}
        """By workspace, endpoint id and config version."""

    async def run(self) -> None:
        """Until cancelled. Deployments that a restart interrupted go on from their stage."""
        try:
            while True:
                self._deployments.changed.clear()
                await self._clock.wait(self._deployments.changed, self._step_and_next_due())
        finally:
            for loading in self._loading.values():
                loading.cancel()

    def _step_and_next_due(self) -> float | None:
        try:
            return self.step()
        except StateError:  # a full disk, say: deployments go on once it can be written again
            log.exception("deployments stand still")
            return self._clock.now() + RETRY_SECONDS

    def forget(self, workspace: str) -> None:
        """Its endpoints are gone: nobody waits for their loads."""
        for key in [key for key in self._loading if key[0] == workspace]:
            self._loading.pop(key).cancel()

    async def settle(self, workspace: str) -> None:
        """After its clock was moved: move on all that is due, in order, and see the loads through
        that hold up this workspace. Others load on behind it.
        """
        self._deployments.changed.set()  # what `run` sleeps for is nearer now
        self.step()
        while held_up := self._held_up(workspace):
            await asyncio.wait(held_up, return_when=asyncio.FIRST_COMPLETED)
            self.step()

    def step(self) -> float | None:
        """Move on all that is due, the earliest first. Answers when the next is."""
        while moved := self._move_on():
            self._admit(moved)
        self._admit()
        due, look_at = self._deployments.agenda.first(), self._scaling.first()
        times = [due.at] if due is not None else []
        return min(times + ([look_at] if look_at is not None else []), default=None)

    def _move_on(self) -> Moment | None:
        """The earliest of what is due happens; answers where and when. None: nothing is."""
        agenda, now = self._deployments.agenda, self._clock.now()
        while (due := agenda.first()) is not None and self._waits(due):
            agenda.set_aside(due)
        look_at = self._scaling.first()
        if look_at is not None and look_at <= now and (due is None or look_at < due.at):
            return self._scaling.look()
        if due is None or due.at > now:
            return None
        self._advance(due)
        return due.endpoint.workspace, due.at_workspace

    def _admit(self, moment: Moment | None = None) -> None:
        """Deployments that wait for GPU replicas go on, if there are enough by then."""
        for endpoint in self._deployments.with_room(moment):
            self._load_next(endpoint)

    def _held_up(self, workspace: str) -> list[Loading]:
        now = self._clock.now()
        held_up = []
        for (owner, endpoint_id, _), loading in self._loading.items():
            due = self._deployments.agenda.of(owner, endpoint_id, "pending")
            if (
                owner == workspace
                and due is not None
                and due.at <= now
                and self._waits(due)
                and loading is self._loading[_key(due.endpoint)]
            ):
                held_up.append(loading)
        return held_up

    def _advance(self, due: Due) -> None:
        """What the endpoint was due for happens."""
        endpoint = due.endpoint
        if due.role == "active":
            self._deployments.idle_time_is_over(endpoint)
            return
        assert endpoint.pending is not None
        pending, at = endpoint.pending, due.at_workspace
        if pending.stage in (CREATING, WAITING):
            if failures := fates.failures(pending, CREATING):
                self._deployments.fail(endpoint, failures, at)
            elif self._deployments.may_load(endpoint, at):
                self._load_next(endpoint)
            return
        if failures := fates.failures(pending, LOADING):
            self._deployments.fail(endpoint, failures, at)
            return
        loading = self._loading.get(_key(endpoint)) or self._start_loading(endpoint)
        if not loading.done():
            return
        del self._loading[_key(endpoint)]
        loaded = loading.result()
        at = max(at, loaded.at)
        if loaded.failures:
            self._deployments.fail(endpoint, loaded.failures, at)
        else:
            self._deployments.succeed(endpoint, at)

    def _load_next(self, endpoint: Endpoint) -> None:
        assert endpoint.pending is not None
        if fates.loads(endpoint.pending):
            self._start_loading(endpoint)
        self._deployments.enter_stage(endpoint, LOADING)

    def _waits(self, due: Due) -> bool:
        """The deployment can only go on once its weights are there."""
        loading = self._loading.get(_key(due.endpoint))
        pending = due.endpoint.pending
        return (
            due.role == "pending"
            and loading is not None
            and not loading.done()
            and pending is not None
            and pending.stage == LOADING
        )

    def _start_loading(self, endpoint: Endpoint) -> Loading:
        loading = asyncio.ensure_future(self._load_all(endpoint))
        self._loading[_key(endpoint)] = loading
        return loading

    async def _load_all(self, endpoint: Endpoint) -> Loaded:
        try:
            return await self._load_entities(endpoint)
        finally:  # no callback: at once, so that nobody finds it loaded but still set aside
            self._deployments.agenda.bring_back(endpoint.workspace, endpoint.id)
            self._deployments.changed.set()

    async def _load_entities(self, endpoint: Endpoint) -> Loaded:
        assert endpoint.pending is not None and endpoint.pending.due_at is not None
        at, began, failures = endpoint.pending.due_at, self._clock.now(), {}
        for entity in endpoint.pending.entities:
            if entity.entity_name is None:
                continue
            load = asyncio.to_thread(self._load, entity)
            [outcome] = await asyncio.gather(load, return_exceptions=True)
            loaded_at = at + max(0.0, self._clock.now() - began)
            self._note(endpoint, entity, outcome, loaded_at)
            if isinstance(outcome, BaseException):
                message = f"Model server failed to load the model. {_reason(outcome)}"
                failures[entity.name] = Failure(EntityState.FAILED, message)
        return Loaded(failures, at + max(0.0, self._clock.now() - began))

    def _note(
        self,
        endpoint: Endpoint,
        entity: ServedEntity,
        outcome: EngineInfo | BaseException,
        at: float,
    ) -> None:
        try:
            self._deployments.note_load(endpoint, entity, outcome, at)
        except StateError:  # the deployment does not depend on its history
            log.exception("the history of endpoint %s lacks a load", endpoint.name)


def _reason(error: BaseException) -> str:
    """What nobody foresaw fails this deployment alone, under the real text for model code."""
    if isinstance(error, LoadFailed):
        return str(error)
    log.error("a model did not load", exc_info=error)
    return f"An error occurred in model loading code: {type(error).__name__}: {error}"


def _key(endpoint: Endpoint) -> tuple[str, str, int]:
    return endpoint.workspace, endpoint.id, endpoint.last_config_version
