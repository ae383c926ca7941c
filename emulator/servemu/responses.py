"""JSON answers, and what an exception looks like on the wire."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from servemu.errors import ApiError, InternalError, wire_body

log = logging.getLogger("servemu")


def json_response(
    content: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Compact JSON, as the real service sends it."""
    body = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return Response(body, status, headers, media_type="application/json")


def error_response(error: ApiError, request_id: str) -> Response:
    """The failure as the real service would answer it."""
    return json_response(wire_body(error, request_id), status=error.status, headers=error.headers)


async def on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error, request.scope["request_id"])


async def on_unexpected_error(request: Request, error: Exception) -> Response:
    """The last border: what nobody foresaw becomes the real service's 500."""
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return error_response(InternalError(), request.scope.get("request_id", ""))
