"""The OpenAI paths below `/serving-endpoints/`: `model` in the body names the endpoint."""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from servemu import answering
from servemu.aside import aside
from servemu.metering import route
from servemu.routes.invocations import or_client_left, read_body
from servemu.schemas.decoding import decode, parse, refuse
from servemu.schemas.responses import API, ResponsesRequest
from servemu.serving import Served, Task


async def chat_completions(request: Request) -> Response:
    """`POST /serving-endpoints/chat/completions`."""
    return await or_client_left(_answer(request, "llm/v1/chat"))


async def completions(request: Request) -> Response:
    """`POST /serving-endpoints/completions`."""
    return await or_client_left(_answer(request, "llm/v1/completions"))


async def embeddings(request: Request) -> Response:
    """`POST /serving-endpoints/embeddings`."""
    return await or_client_left(_answer(request, "llm/v1/embeddings"))


async def responses(request: Request) -> Response:
    """`POST /serving-endpoints/responses`: models of OpenAI only (facts/data_plane §1.1)."""
    return await or_client_left(_respond(request))


async def _respond(request: Request) -> Response:
    return await respond(request, parse(await read_body(request)))


async def respond(request: Request, value: Mapping[str, Any]) -> Response:
    """Answer a body of the Responses API. Raises `ApiError`."""
    served = await route(request, endpoint_in(value))
    check_api(served, API)
    wanted = await aside(request, decode, ResponsesRequest, value)
    return await answering.converse(request, served, wanted)


def endpoint_in(value: Mapping[str, Any]) -> str:
    """The endpoint that the body names. Raises `BadRequest`."""
    model = value.get("model")
    if not isinstance(model, str) or not model:
        raise refuse("model must be the name of a serving endpoint")
    return model


def check_api(served: Served, api: str) -> None:
    """Raises `BadRequest` where the endpoint does not speak it; the text is a GUESS."""
    if api not in served.api_types:
        raise refuse(f'endpoint "{served.endpoint}" does not serve {api}')


async def _answer(request: Request, task: Task) -> Response:
    return await answer_by_task(request, parse(await read_body(request)), task)


async def answer_by_task(request: Request, value: Mapping[str, Any], task: Task) -> Response:
    """Answer a body whose model is an endpoint of this task. Raises `ApiError`."""
    model = endpoint_in(value)
    served = await route(request, model)
    if served.task != task:
        await aside(request, answering.decode_by_task, served, value)
        raise refuse(f'endpoint "{model}" serves {served.task}, not {task}')
    return await answering.answer(request, served, value)
