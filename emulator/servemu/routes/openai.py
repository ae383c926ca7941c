"""The OpenAI paths below `/serving-endpoints/`: `model` in the body names the endpoint."""

from starlette.requests import Request
from starlette.responses import Response

from servemu import answering
from servemu.metering import route
from servemu.routes.invocations import or_client_left, read_body
from servemu.schemas.decoding import parse, refuse
from servemu.serving import Task


async def chat_completions(request: Request) -> Response:
    """`POST /serving-endpoints/chat/completions`."""
    return await or_client_left(_answer(request, "llm/v1/chat"))


async def completions(request: Request) -> Response:
    """`POST /serving-endpoints/completions`."""
    return await or_client_left(_answer(request, "llm/v1/completions"))


async def embeddings(request: Request) -> Response:
    """`POST /serving-endpoints/embeddings`."""
    return await or_client_left(_answer(request, "llm/v1/embeddings"))


async def _answer(request: Request, task: Task) -> Response:
    value = parse(await read_body(request))
    model = value.get("model")
    if not isinstance(model, str) or not model:
        raise refuse("model must be the name of a serving endpoint")
    served = await route(request, model)
    if served.task != task:
        answering.decode_by_task(served, value)
        raise refuse(f'endpoint "{model}" serves {served.task}, not {task}')
    return await answering.answer(request, served, value)
