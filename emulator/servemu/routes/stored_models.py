"""`/_emulator/models`: the small models that play the big ones, in the store and in memory."""

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from servemu.errors import InvalidParameter, ResourceNotFound, StoredModelExists, StoredModelInUse
from servemu.responses import json_response
from servemu.schemas.body import read_body
from servemu.schemas.control import Pull
from servemu.world import World, world_of
from servemu_engine.errors import LoadFailed
from servemu_engine.weights import ModelNameTaken, ModelStore, StoredModel, check_name
from servemu_state import workspaces
from servemu_state.endpoints import list_all as list_all_of
from servemu_state.records import Endpoint


async def list_all(request: Request) -> Response:
    shown = await asyncio.to_thread(describe, world_of(request))
    return json_response({"models": list(shown.values())})


async def get(request: Request) -> Response:
    shown = await asyncio.to_thread(describe, world_of(request))
    return json_response(_find(shown, request.path_params["name"]))


async def pull(request: Request) -> Response:
    """Answers when the model is there, which may take minutes."""
    wanted = await read_body(request, Pull)
    world = world_of(request)
    name = wanted.name or wanted.source
    loads = world.residents.loads
    try:
        stored = await asyncio.to_thread(
            store_of(world).pull, wanted.source, wanted.name, loads.progress(name)
        )
    except ModelNameTaken as error:
        raise StoredModelExists(str(error)) from error
    except LoadFailed as error:
        raise InvalidParameter(str(error)) from error
    finally:
        loads.end(name)
    return json_response(_find(describe(world), stored.name))


async def remove(request: Request) -> Response:
    await asyncio.to_thread(_remove, world_of(request), request.path_params["name"])
    return json_response({})


def store_of(world: World) -> ModelStore:
    return ModelStore(world.settings.model_store.expanduser())


def describe(world: World) -> dict[str, dict[str, Any]]:
    """By name, sorted. `dtype` and `size` are those of the files; of what is in memory,
    `precision` is what it computes in and `memory` the bytes of its weights. `loading`, of what is
    being fetched or loaded: how far it is, in what its phase counts.
    """
    loading = world.residents.loads.describe()
    resident = {model["name"]: model for model in world.residents.describe()}
    stored = {model.name: model for model in store_of(world).list()}
    shown: dict[str, dict[str, Any]] = {}
    for name in sorted(resident.keys() | stored.keys() | loading.keys()):
        row = {"name": name, "resident": name in resident}
        loaded = resident.get(name, {})
        if loaded:
            row |= loaded | {"precision": loaded["dtype"], "memory": loaded["size"]}
        if name in stored:
            row |= render_stored(stored[name])
        if name in loading:
            row["loading"] = loading[name]
        shown[name] = row
    return shown


def render_stored(model: StoredModel) -> dict[str, Any]:
    """What the store knows."""
    return {
        "path": str(model.path),
        "source": model.source,
        "task": model.task,
        "dtype": model.dtype,
        "size": model.num_bytes,
    }


def _remove(world: World, name: str) -> None:
    try:
        check_name(name)
    except LoadFailed as error:
        raise InvalidParameter(str(error)) from error
    with world.residents.unused(name) as is_unused:
        if not is_unused:
            raise StoredModelInUse(name)
        endpoint = _endpoint_on(world, name)
        if endpoint is not None:
            where = f"'{endpoint.name}' of workspace '{endpoint.workspace}'"
            raise StoredModelInUse(name, f"plays the model of endpoint {where}")
        was_there = store_of(world).remove(name)
    if not was_there:
        raise _not_stored(name)


def _endpoint_on(world: World, name: str) -> Endpoint | None:
    """One that would want its weights at the next request. Pay-per-token endpoints do not count:
    every store model of the catalogue plays for one of them."""
    with world.db.read() as connection:
        names = [workspace.name for workspace in workspaces.list_all(connection)]
        endpoints = [one for each in names for one in list_all_of(connection, each)]
    for endpoint in endpoints:
        deployments = [one for one in (endpoint.active, endpoint.pending) if one is not None]
        for entity in (entity for one in deployments for entity in one.entities):
            model = world.lookup.of(entity)
            if model is not None and model.folder is None and model.family.stand_in == name:
                return endpoint
    return None


def _find(shown: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    if name not in shown:
        raise _not_stored(name)
    return shown[name]


def _not_stored(name: str) -> ResourceNotFound:
    return ResourceNotFound(f"Model {ascii(name[:200])} is not in the store.")
