"""`/api/2.0/mlflow/unity-catalog`: the registry as MLflow asks for it (facts/uc_registry §1).

GET has its arguments in the query, everything else, DELETE included, in a JSON body.
"""

import base64
import binascii
from dataclasses import replace
from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from servemu.errors import InvalidParameter
from servemu.registry.models import tagged
from servemu.registry.versions import NewVersion
from servemu.responses import json_response
from servemu.schemas import registry as schemas
from servemu.schemas.body import parse, read_body
from servemu.schemas.registry import pairs, render_model, render_version
from servemu.world import principal_of, world_of
from servemu_state.records import ModelVersion, RegisteredModel

Schema = TypeVar("Schema", bound=BaseModel)


def read_query(request: Request, schema: type[Schema]) -> Schema:
    """The query as `schema`. Raises `InvalidParameter`."""
    return parse(dict(request.query_params), schema)


async def create_model(request: Request) -> Response:
    body = await read_body(request, schemas.CreateModel)
    models = world_of(request).models
    model = models.create(principal_of(request), body.name, body.description, pairs(body.tags))
    return _model(model)


async def get_model(request: Request) -> Response:
    name = read_query(request, schemas.NamedModel).name
    return _model(world_of(request).models.get(principal_of(request).workspace, name))


async def search_models(request: Request) -> Response:
    """Those of the workspace, not `system.ai`: that is the catalogue's, and hundreds long there."""
    asked = read_query(request, schemas.SearchModels)
    after = after_token(asked.page_token)
    most = asked.max_results or schemas.MOST
    models = world_of(request).models.page(
        principal_of(request).workspace, after=after, most=most + 1, published=False
    )
    return json_response(
        {
            "registered_models": [render_model(model) for model in models[:most]],
            **next_page(models, most),
        }
    )


async def update_model(request: Request) -> Response:
    """A new description, or a new name."""
    body = await read_body(request, schemas.UpdateModel)
    caller, models = principal_of(request), world_of(request).models
    text = body.description

    def step(model: RegisteredModel) -> RegisteredModel:
        return model if text is None else replace(model, description=text)

    if body.new_name is not None:
        return _model(models.rename(caller, body.name, body.new_name, step))
    return _model(models.change(caller, body.name, step))


async def delete_model(request: Request) -> Response:
    body = await read_body(request, schemas.NamedModel)
    world_of(request).versions.delete_model(principal_of(request), body.name)
    return json_response({})


async def set_model_tag(request: Request) -> Response:
    body = await read_body(request, schemas.SetTag)
    return _tag_model(request, body, body.value)


async def delete_model_tag(request: Request) -> Response:
    return _tag_model(request, await read_body(request, schemas.SetTag), None)


def _tag_model(request: Request, body: schemas.SetTag, value: str | None) -> Response:
    world_of(request).models.change(
        principal_of(request),
        body.name,
        lambda model: replace(model, tags=tagged(model.tags, body.key, value)),
    )
    return json_response({})


async def set_alias(request: Request) -> Response:
    body = await read_body(request, schemas.Alias)
    versions = world_of(request).versions
    versions.set_alias(principal_of(request), body.name, body.alias, body.version)
    return json_response({})


async def get_alias(request: Request) -> Response:
    asked = read_query(request, schemas.NamedAlias)
    workspace = principal_of(request).workspace
    return _version(*world_of(request).versions.by_alias(workspace, asked.name, asked.alias))


async def delete_alias(request: Request) -> Response:
    body = await read_body(request, schemas.NamedAlias)
    world_of(request).versions.drop_alias(principal_of(request), body.name, body.alias)
    return json_response({})


async def create_version(request: Request) -> Response:
    body = await read_body(request, schemas.CreateVersion)
    kept = {"run_tracking_server_id": body.run_tracking_server_id, "model_id": body.model_id}
    new = NewVersion(
        source=body.source,
        run_id=body.run_id,
        description=body.description,
        tags=pairs(body.tags),
        details={key: value for key, value in kept.items() if value is not None},
    )
    return _version(*world_of(request).versions.create(principal_of(request), body.name, new))


async def get_version(request: Request) -> Response:
    asked = read_query(request, schemas.NamedVersion)
    workspace = principal_of(request).workspace
    return _version(*world_of(request).versions.get(workspace, asked.name, asked.version))


async def search_versions(request: Request) -> Response:
    """By the model's name; one that is not there has none."""
    asked = read_query(request, schemas.SearchVersions)
    workspace = principal_of(request).workspace
    model, versions = world_of(request).versions.search(workspace, asked.name())
    shown = [render_version(model, version) for version in versions] if model else []
    return json_response({"model_versions": shown})


async def update_version(request: Request) -> Response:
    body = await read_body(request, schemas.UpdateVersion)
    versions = world_of(request).versions
    return _version(
        *versions.change(
            principal_of(request),
            body.name,
            body.version,
            lambda version: replace(version, description=body.description),
        )
    )


async def delete_version(request: Request) -> Response:
    body = await read_body(request, schemas.NamedVersion)
    world_of(request).versions.delete(principal_of(request), body.name, body.version)
    return json_response({})


async def set_version_tag(request: Request) -> Response:
    body = await read_body(request, schemas.SetTag)
    return _tag_version(request, body, body.value)


async def delete_version_tag(request: Request) -> Response:
    return _tag_version(request, await read_body(request, schemas.SetTag), None)


def _tag_version(request: Request, body: schemas.SetTag, value: str | None) -> Response:
    if body.version is None:
        raise InvalidParameter("Missing required field: version")
    world_of(request).versions.change(
        principal_of(request),
        body.name,
        body.version,
        lambda version: replace(version, tags=tagged(version.tags, body.key, value)),
    )
    return json_response({})


async def finalize_version(request: Request) -> Response:
    body = await read_body(request, schemas.NamedVersion)
    versions = world_of(request).versions
    return _version(*versions.finalize(principal_of(request), body.name, body.version))


async def download_uri(request: Request) -> Response:
    """Only logged by clients that read over the Files API (facts/uc_registry §1.3)."""
    asked = read_query(request, schemas.NamedVersion)
    workspace = principal_of(request).workspace
    model, version = world_of(request).versions.get(workspace, asked.name, asked.version)
    return json_response({"artifact_uri": schemas.storage_location(model, version.version)})


async def emit_lineage(request: Request) -> Response:
    """Accepted and forgotten: best effort in the clients, too."""
    await read_body(request, schemas.NamedVersion)
    return json_response({})


def after_token(token: str) -> str:
    """The name that the page before ended with. Raises `InvalidParameter`; text GUESS."""
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidParameter(f"Invalid page token: '{token[:100]}'") from None


def next_page(models: list[RegisteredModel], most: int) -> dict[str, str]:
    """The token of the next page, if `models` has more than fit into this one."""
    if len(models) <= most:
        return {}
    return {"next_page_token": base64.urlsafe_b64encode(models[most - 1].name.encode()).decode()}


def _model(model: RegisteredModel) -> Response:
    return json_response({"registered_model": render_model(model)})


def _version(model: RegisteredModel, version: ModelVersion) -> Response:
    return json_response({"model_version": render_version(model, version)})
