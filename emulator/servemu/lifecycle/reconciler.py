"""Moves deployments on when their time has come: sleeps until the next due time, never polls."""

import asyncio
import heapq
from collections.abc import Callable

from servemu.clock import Clock
from servemu.lifecycle.deployments import Deployments
from servemu.lifecycle.timeline import CREATING, LOADING, no_capacity
from servemu.lifecycle.transitions import Failure
from servemu_engine.errors import LoadFailed
from servemu_state.records import Endpoint, EntityState

Load = Callable[[str], None]
"""Bring up the engine that serves a registered model (full name). Blocks; raises `LoadFailed`."""

Loading = asyncio.Task[dict[str, Failure]]
"""The failures by served entity; empty: all are up."""


class Reconciler:
    """Walks each deployment through its stages; the weights load during the last one."""

    def __init__(self, deployments: Deployments, clock: Clock, load: Load) -> None:
        self._deployments = deployments
        self._clock = clock
        self._load = load
        self._loading: dict[tuple[str, int], Loading] = {}
        """By endpoint id and config version."""

    async def run(self) -> None:
        """Until cancelled. Deployments that a restart interrupted go on from their stage."""
        try:
            while True:
                self._deployments.changed.clear()
                self.step()
                due = [at for at, endpoint in self._deployments.due() if not self._waits(endpoint)]
                await self._clock.wait(self._deployments.changed, min(due, default=None))
        finally:
            for loading in self._loading.values():
                loading.cancel()

    async def settle(self) -> None:
        """Move on all that is due, in order, and see the loads through that hold it up."""
        self.step()
        while held_up := [self._loading[_key(e)] for _, e in self._overdue() if self._waits(e)]:
            await asyncio.wait(held_up, return_when=asyncio.FIRST_COMPLETED)
            self.step()

    def step(self) -> None:
        """Move on all that is due, the earliest first."""
        queue = [(at, endpoint.id, endpoint) for at, endpoint in self._overdue()]
        heapq.heapify(queue)
        while queue:
            endpoint = heapq.heappop(queue)[2]
            self._advance(endpoint)
            again = self._deployments.due_of(endpoint.id)
            if again is not None and again[0] <= self._clock.now() and not self._waits(again[1]):
                heapq.heappush(queue, (again[0], endpoint.id, again[1]))

    def _overdue(self) -> list[tuple[float, Endpoint]]:
        now = self._clock.now()
        return [(at, endpoint) for at, endpoint in self._deployments.due() if at <= now]

    def _advance(self, endpoint: Endpoint) -> None:
        """The current stage of the endpoint's deployment is over."""
        assert endpoint.pending is not None
        if endpoint.pending.stage == CREATING:
            if no_capacity(endpoint.pending.fault) is not None:
                self._deployments.abort_for_capacity(endpoint)
                return
            self._start_loading(endpoint)
            self._deployments.enter_stage(endpoint, LOADING)
            return
        loading = self._loading.get(_key(endpoint)) or self._start_loading(endpoint)
        if not loading.done():
            return
        del self._loading[_key(endpoint)]
        failures = loading.result()
        if failures:
            self._deployments.fail(endpoint, failures)
        else:
            self._deployments.succeed(endpoint)

    def _waits(self, endpoint: Endpoint) -> bool:
        """The deployment can only go on once its weights are there."""
        loading = self._loading.get(_key(endpoint))
        return (
            loading is not None
            and not loading.done()
            and endpoint.pending is not None
            and endpoint.pending.stage == LOADING
        )

    def _start_loading(self, endpoint: Endpoint) -> Loading:
        loading = asyncio.ensure_future(self._load_entities(endpoint))
        loading.add_done_callback(lambda _: self._deployments.changed.set())
        self._loading[_key(endpoint)] = loading
        return loading

    async def _load_entities(self, endpoint: Endpoint) -> dict[str, Failure]:
        assert endpoint.pending is not None
        failures = {}
        for entity in endpoint.pending.entities:
            if entity.entity_name is None:
                continue
            try:
                await asyncio.to_thread(self._load, entity.entity_name)
            except LoadFailed as error:
                message = f"Model server failed to load the model. {error}"
                failures[entity.name] = Failure(EntityState.FAILED, message)
        return failures


def _key(endpoint: Endpoint) -> tuple[str, int]:
    return endpoint.id, endpoint.last_config_version
