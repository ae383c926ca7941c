"""`/ai-gateway/mlflow/v1/…`, the OpenAI paths of the Unity AI Gateway, where `ai_gateway` is on.

`model` is the name of an endpoint, or that of a model in Unity Catalog whose pay-per-token endpoint
answers (facts/data_plane §1.1). Off: the real 404, which sends clients to `/serving-endpoints`.
"""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from servemu.catalog import Catalog
from servemu.errors import PathNotFound
from servemu.routes.invocations import or_client_left, read_body
from servemu.routes.openai import answer_by_task, endpoint_in, respond
from servemu.routes.paths import KNOWN_ABSENT
from servemu.schemas.decoding import parse, refuse
from servemu.serving import Task
from servemu.world import world_of

PREFIX = "/ai-gateway/"


async def chat_completions(request: Request) -> Response:
    """`POST /ai-gateway/mlflow/v1/chat/completions`."""
    return await or_client_left(_answer(request, "llm/v1/chat"))


async def embeddings(request: Request) -> Response:
    """`POST /ai-gateway/mlflow/v1/embeddings`."""
    return await or_client_left(_answer(request, "llm/v1/embeddings"))


async def responses(request: Request) -> Response:
    """`POST /ai-gateway/mlflow/v1/responses`."""
    return await or_client_left(_respond(request))


async def _answer(request: Request, task: Task) -> Response:
    value = await _read(request)
    _check_strict(value)
    return await answer_by_task(request, value, task)


async def _respond(request: Request) -> Response:
    return await respond(request, await _read(request))


async def _read(request: Request) -> dict[str, Any]:
    """The body, with the endpoint's name as its model. Raises `PathNotFound`, `BadRequest`."""
    world = world_of(request)
    if not world.settings.ai_gateway:
        raise PathNotFound(request.method, request.url.path, KNOWN_ABSENT[PREFIX])
    value = parse(await read_body(request))
    return {**value, "model": endpoint_of(world.catalog, endpoint_in(value))}


def endpoint_of(catalog: Catalog, model: str) -> str:
    """The endpoint behind a model's name; any other name is an endpoint's already."""
    if model.count(".") != 2:
        return model
    short = model.rpartition(".")[2]
    for endpoint in catalog.foundation_endpoints:
        if endpoint.entity_name == model or endpoint.name in (short, f"databricks-{short}"):
            return endpoint.name
    return model


def _check_strict(value: Mapping[str, Any]) -> None:
    """The gateway does not know `strict` of a function (CODE); the words are the decoder's."""
    tools = value.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict) and "strict" in function:
            raise refuse('json: unknown field "strict"')
