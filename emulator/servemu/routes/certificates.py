"""`/_emulator/throughput`: what was provisioned, and what came of it."""

from starlette.requests import Request
from starlette.responses import Response

from servemu.lifecycle.budgets import bounds_of, standing_replicas
from servemu.lifecycle.sleeping import is_scaled_to_zero, scales_to_zero
from servemu.responses import json_response
from servemu.throughput.certificate import Certificate, Replicas, of_budget, rendered, together
from servemu.world import World, principal_of, world_of
from servemu_state.records import Endpoint, ServedEntity

Json = dict[str, object]


async def list_all(request: Request) -> Response:
    """Of the endpoints that serve, and of the pay-per-token ones that were asked."""
    world, workspace = world_of(request), principal_of(request).workspace
    endpoints = world.deployments.list_all(workspace)
    shown = [_of_endpoint(world, one) for one in endpoints if one.active is not None]
    asked = world.router.budgets.unlimited_of(workspace)
    shown += [_of_pay_per_token(world, workspace, name) for name in asked]
    return json_response({"throughput": shown})


async def get(request: Request) -> Response:
    """Of one endpoint, also before it serves or was asked. Raises `EndpointNotFound`."""
    world, name = world_of(request), request.path_params["name"]
    workspace = principal_of(request).workspace
    if world.catalog.foundation_endpoint(name) is not None:
        return json_response(_of_pay_per_token(world, workspace, name))
    return json_response(_of_endpoint(world, world.deployments.get(workspace, name)))


def _of_endpoint(world: World, endpoint: Endpoint) -> Json:
    active = endpoint.active
    entities = () if active is None else active.entities
    certificates = {entity.name: _of_entity(world, endpoint, entity) for entity in entities}
    total = together(list(certificates.values())) if certificates else Certificate(0.0)
    return {
        "endpoint": endpoint.name,
        "config_version": None if active is None else active.config_version,
        **_shown(world, endpoint.workspace, total),
        "entities": [{"name": name, **rendered(one)} for name, one in certificates.items()],
    }


def _of_pay_per_token(world: World, workspace: str, name: str) -> Json:
    budget = world.router.budgets.unlimited_of(workspace).get(name)
    certificate = of_budget(budget, None, None, world.clock.monotonic())
    return {
        "endpoint": name,
        "config_version": None,
        **_shown(world, workspace, certificate),
        "entities": [{"name": name, **rendered(certificate)}],
    }


def _shown(world: World, workspace: str, total: Certificate) -> Json:
    return {
        "at": world.workspaces.now(workspace),
        "throughput_scale": world.settings.throughput_scale,
        **rendered(total),
    }


def _of_entity(world: World, endpoint: Endpoint, entity: ServedEntity) -> Certificate:
    model, budgets = world.lookup.of(entity), world.router.budgets
    if model is None:  # external, or it left the catalogue
        return Certificate(None)
    bounds, rate = bounds_of(entity, model), budgets.rate(entity, model)
    standing = standing_replicas(entity, model, autoscaling=world.settings.autoscaling)
    replicas = None
    if bounds is not None and standing is not None:
        least, most = bounds
        if is_scaled_to_zero(entity):
            standing, rate = 0, 0.0
        replicas = Replicas(standing, 0 if scales_to_zero(entity) else least, most)
    budget = budgets.find(endpoint, entity.name)
    return of_budget(budget, rate, replicas, world.clock.monotonic())
