"""Which served entity answers a request, what runs it and which budget it draws on."""

import asyncio
import json
from bisect import bisect
from dataclasses import dataclass
from itertools import accumulate

from servemu import access
from servemu.auth import Principal
from servemu.catalog import CatalogModel
from servemu.clock import Clock
from servemu.dice import Dice
from servemu.errors import (
    BadRequest,
    EndpointNotReady,
    EndpointStopped,
    InvocationEndpointNotFound,
    ModelServerUnavailable,
    RequestTimedOut,
)
from servemu.lifecycle.budgets import Budgets
from servemu.lifecycle.deployments import Deployments
from servemu.lifecycle.kinds import is_external
from servemu.lifecycle.scaling import Scaling
from servemu.lifecycle.sleeping import is_scaled_to_zero
from servemu.registry.lookup import ModelLookup
from servemu.replies import Addressed, Replies
from servemu.residents import Residents
from servemu.schemas.rendering import is_ready, is_suspended
from servemu.serving import Served
from servemu.settings import Settings
from servemu.throughput.budget import TokenBudget
from servemu_engine.base import Embedder, Engine
from servemu_engine.errors import LoadFailed
from servemu_state.records import Deployment, Endpoint, ServedEntity


@dataclass(frozen=True, slots=True)
class Target:
    """The choice, before the engine is asked for."""

    entity: str
    model: CatalogModel
    budget: TokenBudget
    api_types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Engines:
    """What runs the models, what may be said instead of them, and what decides among several."""

    residents: Residents
    replies: Replies
    dice: Dice


class TrafficRouter:
    """Routes by traffic percentage; keeps the token budgets of what is deployed."""

    def __init__(
        self,
        deployments: Deployments,
        models: ModelLookup,
        engines: Engines,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._deployments = deployments
        self._models = models
        self._engines = engines
        self._clock = clock
        self._settings = settings
        self.budgets = Budgets(clock, settings)
        self.scaling = Scaling(deployments, models, self.budgets, clock, settings)

    async def route(
        self, caller: Principal, endpoint: str, served_entity: str | None = None
    ) -> Served:
        """By traffic, or the entity that is named. Loads the model if it was dropped, and waits
        for an entity that is scaled to zero.

        Raises `InvocationEndpointNotFound`, `InvocationDenied`, `EndpointStopped`,
        `EndpointNotReady`, `BadRequest` (external models), `RequestTimedOut`,
        `ModelServerUnavailable`.
        """
        target = self._target(caller, endpoint, served_entity)
        deadline = self._clock.monotonic() + self._settings.request_timeout
        while isinstance(target, Endpoint):
            await self._wake(target, deadline)
            target = self._target(caller, endpoint, served_entity)
        engine = self._engines.replies.over(
            await self._engine(target.model),
            Addressed(caller.workspace, endpoint, target.model),
        )
        family = target.model.family
        is_embedding = target.model.task == "llm/v1/embeddings"
        return Served(
            workspace=caller.workspace,
            endpoint=endpoint,
            entity=target.entity,
            model=target.model.served_name,
            task=target.model.task,
            engine=None if is_embedding else engine,  # type: ignore[arg-type]
            embedder=engine if is_embedding else None,  # type: ignore[arg-type]
            budget=target.budget,
            limits=self.budgets.limits if target.budget.is_limited else None,
            pace=self.budgets.pace(target.model),
            context_length=family.context_length,
            dimensions=family.dimensions,
            normalize=family.normalized,
            api_types=target.api_types,
            signature=target.model.signature,
            model_type=family.model_type,
        )

    def forget(self, endpoint: Endpoint) -> None:
        """The endpoint is gone, and its budgets with it."""
        self.budgets.forget(endpoint)
        self.scaling.forget(endpoint.id)

    def forget_all(self, workspace: str) -> None:
        """All endpoints of the workspace are gone, and what was counted of it as a whole."""
        self.budgets.forget_all(workspace)
        self.scaling.forget_all(workspace)

    def _target(self, caller: Principal, name: str, served_entity: str | None) -> Target | Endpoint:
        """The choice; or the endpoint, when what was chosen must be woken first."""
        workspace = caller.workspace
        provided = self._models.catalog.foundation_endpoint(name)
        if provided is not None:
            budget = self.budgets.unlimited(workspace, name)
            return Target(provided.name, provided.model, budget, provided.api_types)
        endpoint = self._deployments.find(workspace, name)
        if endpoint is None:
            raise InvocationEndpointNotFound
        access.admit(self._deployments.db, caller, endpoint)
        if is_suspended(endpoint):
            raise EndpointStopped
        if endpoint.active is None or not is_ready(endpoint):
            raise EndpointNotReady(name)
        self._deployments.asked(endpoint)
        entity = self._choose(endpoint, endpoint.active, served_entity)
        if is_scaled_to_zero(entity):
            return endpoint
        if is_external(entity):
            raise _not_served(entity.settings["external_model"]["provider"])
        model = self._models.of(entity)
        if model is None:
            raise ModelServerUnavailable(f"Model '{entity.entity_name}' left the catalogue.")
        budget = self.budgets.of(endpoint, entity, model)
        self.scaling.demanded(endpoint, entity, model)
        return Target(entity.name, model, budget, model.api_types)

    def _choose(
        self, endpoint: Endpoint, active: Deployment, served_entity: str | None
    ) -> ServedEntity:
        if served_entity is not None:
            chosen = [entity for entity in active.entities if entity.name == served_entity]
            if not chosen:
                raise InvocationEndpointNotFound
            return chosen[0]
        if len(active.entities) == 1:
            return active.entities[0]
        by_name = {entity.name: entity for entity in active.entities}
        sums = list(accumulate(route.traffic_percentage for route in active.routes))
        drawn = self._engines.dice.number(endpoint.workspace, f"traffic/{endpoint.name}")
        return by_name[active.routes[bisect(sums, drawn * sums[-1])].served_entity]

    async def _wake(self, endpoint: Endpoint, deadline: float) -> None:
        """Returns when it is worth another look. Raises `RequestTimedOut`."""
        waking = asyncio.ensure_future(self._deployments.wake(endpoint))
        too_late = asyncio.ensure_future(self._clock.sleep_until(deadline))
        try:
            await asyncio.wait((waking, too_late), return_when=asyncio.FIRST_COMPLETED)
            if not waking.done():
                raise RequestTimedOut
            await waking
        finally:
            waking.cancel()
            too_late.cancel()

    async def _engine(self, model: CatalogModel) -> Engine | Embedder:
        engine = self._engines.residents.find(model)
        if engine is not None:
            return engine
        try:
            return await asyncio.to_thread(self._engines.residents.load, model)
        except LoadFailed as error:
            message = f"Model server failed to load the model. {error}"
            raise ModelServerUnavailable(message) from None


def _not_served(provider: str) -> BadRequest:
    """What a query of an external model is answered: the shape is real (facts/data_plane §2.5)."""
    why = "servemu serves no external models: it has no way to their provider."
    error = {"error": {"message": why, "type": "not_emulated"}}
    message = {"external_model_provider": provider, "external_model_error": error}
    return BadRequest(json.dumps(message, separators=(",", ":")), {"X-Emulator-Why": why})
