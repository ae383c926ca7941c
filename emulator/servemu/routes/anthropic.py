"""The path of Anthropic's clients. They carry the token as Bearer; `x-api-key` is not looked at."""

from starlette.requests import Request
from starlette.responses import Response

from servemu import answering
from servemu.aside import aside
from servemu.metering import route
from servemu.routes.invocations import or_client_left, read_body
from servemu.routes.openai import check_api
from servemu.schemas.decoding import parse
from servemu.schemas.messages import API, decode_messages


async def messages(request: Request) -> Response:
    """`POST /serving-endpoints/anthropic/v1/messages`: Claude only (facts/data_plane §1.1)."""
    return await or_client_left(_messages(request))


async def _messages(request: Request) -> Response:
    value = parse(await read_body(request))
    wanted = await aside(request, decode_messages, value)
    served = await route(request, wanted.model)
    check_api(served, API)
    return await answering.converse(request, served, wanted)
