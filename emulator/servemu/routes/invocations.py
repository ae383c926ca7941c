"""`POST /serving-endpoints/{name}[/served-models/{entity}]/invocations`."""

from collections.abc import Awaitable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from servemu import answering
from servemu.aside import note_size
from servemu.errors import PayloadTooLarge
from servemu.metering import route
from servemu.predicting import predict
from servemu.schemas.decoding import parse
from servemu.serving import world_of

DRAIN = 8
"""A body up to this many times the limit is read to its end, so that its sender sees the 413."""


async def invoke(request: Request) -> Response:
    """The endpoint's task decides the schema; `model` in the body is ignored (facts §1.1).

    Path parameters: `name`, and `entity` where the traffic split is passed over.
    """
    return await or_client_left(_invoke(request))


async def _invoke(request: Request) -> Response:
    body = await read_body(request)
    path = request.path_params
    served = await route(request, path["name"], path.get("entity"))
    if served.task == "custom":
        return await predict(request, served, body)
    return await answering.answer(request, served, parse(body))


async def or_client_left(answer: Awaitable[Response]) -> Response:
    """The answer, or an empty one for nobody when the client left while it was made."""
    try:
        return await answer
    except ClientDisconnect:
        return Response(status_code=answering.CLIENT_LEFT)


async def read_body(request: Request) -> bytes:
    """The body in pieces, whatever Content-Length says. Raises `PayloadTooLarge`."""
    limit = world_of(request).settings.max_body_bytes
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > DRAIN * limit:
            raise PayloadTooLarge(limit)
        if size <= limit:
            parts.append(part)
    if size > limit:
        raise PayloadTooLarge(limit, size)
    note_size(request, size)
    return b"".join(parts)
