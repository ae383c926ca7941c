"""`/api/2.1/unity-catalog/models`: the same registry as databricks-sdk asks for it."""

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from servemu.errors import InvalidParameter
from servemu.responses import json_response
from servemu.routes.registry import after_token, next_page, read_query
from servemu.schemas import unity_catalog as schemas
from servemu.schemas.body import read_body
from servemu.schemas.unity_catalog import render_alias, render_model, render_version
from servemu.world import principal_of, world_of
from servemu_state.records import RegisteredModel


async def create_model(request: Request) -> Response:
    body = await read_body(request, schemas.CreateModel)
    models = world_of(request).models
    model = models.create(principal_of(request), body.full_name, body.comment)
    return json_response(render_model(model))


async def list_models(request: Request) -> Response:
    """All, or those of a catalog, or of a schema; `system.ai` is among them."""
    asked = read_query(request, schemas.ListModels)
    most = asked.max_results or schemas.MOST
    models = world_of(request).models.page(
        principal_of(request).workspace,
        within=asked.within,
        after=after_token(asked.page_token),
        most=most + 1,
    )
    return json_response(
        {
            "registered_models": [render_model(model) for model in models[:most]],
            **next_page(models, most),
        }
    )


async def get_model(request: Request) -> Response:
    name = request.path_params["full_name"]
    model = world_of(request).models.get(principal_of(request).workspace, name)
    return json_response(render_model(model))


async def update_model(request: Request) -> Response:
    body = await read_body(request, schemas.UpdateModel)
    name = request.path_params["full_name"]
    caller, models = principal_of(request), world_of(request).models

    def step(model: RegisteredModel) -> RegisteredModel:
        return replace(
            model,
            description=model.description if body.comment is None else body.comment,
            owner=body.owner or model.owner,
        )

    if body.new_name is not None and body.new_name not in (name, name.split(".")[-1]):
        return json_response(render_model(models.rename(caller, name, body.new_name, step)))
    model = models.change(caller, name, step)
    return json_response(render_model(model))


async def delete_model(request: Request) -> Response:
    world_of(request).versions.delete_model(principal_of(request), request.path_params["full_name"])
    return json_response({})


async def set_alias(request: Request) -> Response:
    body = await read_body(request, schemas.SetAlias)
    name, alias = request.path_params["full_name"], request.path_params["alias"]
    versions = world_of(request).versions
    versions.set_alias(principal_of(request), name, alias, body.version_num)
    return json_response(render_alias(alias, body.version_num))


async def delete_alias(request: Request) -> Response:
    name, alias = request.path_params["full_name"], request.path_params["alias"]
    world_of(request).versions.drop_alias(principal_of(request), name, alias)
    return json_response({})


async def get_by_alias(request: Request) -> Response:
    name, alias = request.path_params["full_name"], request.path_params["alias"]
    found = world_of(request).versions.by_alias(principal_of(request).workspace, name, alias)
    return json_response(render_version(*found))


async def list_versions(request: Request) -> Response:
    name = request.path_params["full_name"]
    model, versions = world_of(request).versions.list_all(principal_of(request).workspace, name)
    shown = [render_version(model, version) for version in versions]
    return json_response({"model_versions": shown})


async def get_version(request: Request) -> Response:
    name, number = _path(request)
    found = world_of(request).versions.get(principal_of(request).workspace, name, number)
    return json_response(render_version(*found))


async def update_version(request: Request) -> Response:
    body = await read_body(request, schemas.UpdateVersion)
    name, number = _path(request)
    comment = body.comment
    found = world_of(request).versions.change(
        principal_of(request),
        name,
        number,
        lambda version: version if comment is None else replace(version, description=comment),
    )
    return json_response(render_version(*found))


async def delete_version(request: Request) -> Response:
    name, number = _path(request)
    world_of(request).versions.delete(principal_of(request), name, number)
    return json_response({})


def _path(request: Request) -> tuple[str, int]:
    """Name and number of the version. Raises `InvalidParameter`."""
    number: str = request.path_params["version"]
    if not number.isdecimal() or not 0 < len(number) < 10:
        raise InvalidParameter(f"'{number[:100]}' is not a version of a model.")
    return request.path_params["full_name"], int(number)
