"""What happened: events, logs, build logs, metrics and the OpenAPI document of an endpoint."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from servemu import logs as texts
from servemu import metrics as health
from servemu.errors import InvalidParameter, ResourceNotFound
from servemu.lifecycle.history import render_event
from servemu.logs import Container
from servemu.machine import total_memory
from servemu.metrics import Replicas, Scrape
from servemu.responses import json_response
from servemu.world import World, principal_of, world_of
from servemu_state.records import ConfigUpdate, Deployment, Endpoint, ServedEntity

MAX_EVENTS = 1000
DEFAULT_EVENTS = 200
"""What the one known client asks for (facts/control_plane §1.2)."""
INT32 = 2**31


async def events(request: Request) -> Response:
    """Newest first."""
    endpoint = _own_endpoint(request)
    limit = min(_whole_number(request, "limit", DEFAULT_EVENTS), MAX_EVENTS)
    history = world_of(request).deployments.history_of(endpoint, limit)
    return json_response({"events": [render_event(event) for event in history]})


async def logs(request: Request) -> Response:
    """Of the model server of one served entity."""
    endpoint, container = _own_endpoint(request), _container(request)
    world = world_of(request)
    active = endpoint.active
    counts = None
    if active is not None and active.config_version == container.config_version:
        counts = world.meter.of(endpoint.workspace, endpoint.name).get(container.entity)
    history = world.deployments.history_of_version(endpoint, container.config_version)
    return _answer(endpoint, container, texts.service_log(container, history, counts))


async def build_logs(request: Request) -> Response:
    """Of the image build of one served entity."""
    endpoint, container = _own_endpoint(request), _container(request)
    history = world_of(request).deployments.history_of_version(endpoint, container.config_version)
    return _answer(endpoint, container, texts.build_log(container, history))


async def metrics(request: Request) -> Response:
    """Of an endpoint that has served: pay-per-token and brand-new ones have none (404, real)."""
    endpoint = _own_endpoint(request)
    if endpoint.active is None:
        raise ResourceNotFound(f"Endpoint '{endpoint.name}' has no metrics yet.")
    world = world_of(request)
    scrape = Scrape(
        endpoint=endpoint.name,
        replicas=tuple(_replicas(world, endpoint, entity) for entity in endpoint.active.entities),
        at=world.workspaces.now(endpoint.workspace),
        cpu_percentage=world.machine.cpu_percentage(),
        memory_percentage=world.machine.memory_percentage(),
    )
    return Response(health.exposition(scrape), media_type=health.CONTENT_TYPE)


async def openapi(request: Request) -> Response:
    """Also of pay-per-token endpoints (DOC)."""
    from servemu.openapi.endpoint import ServedModel, document  # schemas no start waits for

    world, name = world_of(request), request.path_params["name"]
    host = str(request.base_url).rstrip("/")
    provided = world.catalog.foundation_endpoint(name)
    if provided is not None:
        return json_response(document(ServedModel(name, 1, provided.task, (name,)), host))
    endpoint = world.deployments.get(principal_of(request).workspace, name)
    active = endpoint.active
    if active is None:
        raise ResourceNotFound(f"Endpoint '{name}' serves nothing yet.")
    entities = tuple(entity.name for entity in active.entities)
    task = str(endpoint.settings.get("task", "custom"))  # a custom model's is not shown
    return json_response(document(ServedModel(name, active.config_version, task, entities), host))


def _own_endpoint(request: Request) -> Endpoint:
    """Raises `EndpointNotFound`, `ResourceNotFound` (pay-per-token: status real for metrics)."""
    world, name = world_of(request), request.path_params["name"]
    if world.catalog.foundation_endpoint(name) is not None:
        raise ResourceNotFound(f"Endpoint '{name}' is pay-per-token: Databricks observes it.")
    return world.deployments.get(principal_of(request).workspace, name)


def _container(request: Request) -> Container:
    """Of the config version that is asked for, else of the one that serves or is coming up.

    A failed pending config is found by its number only (facts/provisioned_throughput §4); that one
    under way is found without it is a GUESS. Raises `ResourceNotFound`, `InvalidParameter`.
    """
    endpoint, entity = _own_endpoint(request), request.path_params["entity"]
    version = _whole_number(request, "config_version", 0)
    deployment = _shown(endpoint)
    if version:
        return Container(endpoint.id, version, entity)
    if deployment is None or entity not in {one.name for one in deployment.entities}:
        raise ResourceNotFound(
            f"Served entity '{entity}' of endpoint '{endpoint.name}' does not exist."
        )
    return Container(endpoint.id, deployment.config_version, entity)


def _shown(endpoint: Endpoint) -> Deployment | None:
    under_way = endpoint.config_update is ConfigUpdate.IN_PROGRESS
    return endpoint.active or (endpoint.pending if under_way else None)


def _answer(endpoint: Endpoint, container: Container, log: str | None) -> Response:
    if log is None:
        raise ResourceNotFound(
            f"No logs of served entity '{container.entity}' in config version "
            f"{container.config_version} of endpoint '{endpoint.name}': it has no container."
        )
    return json_response({"logs": log})


def _whole_number(request: Request, name: str, default: int) -> int:
    """A query parameter above 0. Raises `InvalidParameter`, text GUESS."""
    given = request.query_params.get(name)
    if given is None:
        return default
    if not given.isascii() or not given.isdigit() or not 0 < int(given[:20]) < INT32:
        raise InvalidParameter(f"Invalid value for parameter '{name}': '{given}'")
    return int(given)


def _replicas(world: World, endpoint: Endpoint, entity: ServedEntity) -> Replicas:
    model = world.lookup.of(entity)
    rate = None if model is None else world.router.budgets.rate(entity, model)
    stand_in = None if model is None else model.family.stand_in
    most = world.settings.max_concurrency
    counts = world.meter.of(endpoint.workspace, endpoint.name).get(entity.name)
    given: dict[str, Any] = {} if counts is None else {"counts": counts}
    budget = world.router.budgets.find(endpoint, entity.name)
    if budget is not None:
        given["in_flight"] = budget.in_flight
        if budget.queue is not None:
            given["waiting"] = budget.queue.waiting
            given["waiting_tokens"] = budget.queue.waiting_tokens
    return Replicas(
        entity=entity.name,
        is_gpu="GPU" in str(entity.settings.get("workload_type")),
        concurrency=int(entity.settings.get("max_provisioned_concurrency") or most),
        tokens_per_second=rate,
        weights_percentage=_weights_percentage(world, stand_in),
        **given,
    )


def _weights_percentage(world: World, stand_in: str | None) -> float | None:
    """Of this machine's memory; what a real GPU holds is not asked."""
    total = total_memory()
    for resident in world.residents.describe():
        if resident["name"] == stand_in and resident["device"] == "cpu" and total is not None:
            return min(100.0, 100.0 * int(resident["size"]) / total)
    return None
