"""JSON answers, and what an exception looks like on the wire."""

import logging
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from servemu.errors import ApiError, InternalError, wire_body

log = logging.getLogger("servemu")


def json_response(
    content: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Compact JSON, as the real service sends it."""
    return Response(to_json(content), status, headers, media_type="application/json")


def error_response(error: ApiError, request_id: str) -> Response:
    """The failure as the real service would answer it."""
    return json_response(wire_body(error, request_id), status=error.status, headers=error.headers)


async def on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error, request.scope["request_id"])


class UnexpectedErrors:
    """The last border: what nobody foresaw becomes the real service's 500.

    Starlette's own border stands outside of all middleware: its answer would lack the headers that
    every answer has, and the connection would be cut after it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except ClientDisconnect:
            return
        except Exception as error:
            if started or scope["type"] != "http":
                raise
            log.error("%s %s failed", scope["method"], scope["path"], exc_info=error)
            await error_response(InternalError(), scope["request_id"])(scope, receive, send)
