"""The answer of a `status` effect."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from servemu.errors import ApiError
from servemu.responses import json_response
from servemu.schemas.effects import Status

UNAVAILABLE = "The service is temporarily unavailable."
TOO_LONG = "The service is taking too long to process your request."
PLAIN: Mapping[int, tuple[str | int, str]] = {
    400: ("BAD_REQUEST", "Bad request."),
    401: (401, "Credential was not sent or was of an unsupported type for this API."),
    403: ("PERMISSION_DENIED", "User does not have permission."),
    404: ("RESOURCE_DOES_NOT_EXIST", "The resource does not exist."),
    408: ("REQUEST_TIMEOUT", "Request timed out."),
    409: ("RESOURCE_CONFLICT", "The resource is currently being updated."),
    413: ("BAD_REQUEST", "Request body exceeds the maximum size."),
    429: ("REQUEST_LIMIT_EXCEEDED", "Too many requests."),
    500: ("INTERNAL_ERROR", "Internal server error."),
    502: ("BAD_GATEWAY", "Bad gateway."),
    503: ("TEMPORARILY_UNAVAILABLE", UNAVAILABLE),
    504: ("TEMPORARILY_UNAVAILABLE", TOO_LONG),
}
"""Code and text of a status where the rule gives none (facts/data_plane §5, control_plane §4)."""


class InjectedError(ApiError):
    """A `status` effect where an exception is needed: of one served entity."""

    def __init__(self, effect: Status) -> None:
        code, message = _words(effect)
        super().__init__(message, _headers(effect))
        self.effect = effect
        self._code = code

    @property
    def status(self) -> int:
        return self.effect.status

    @property
    def error_code(self) -> str | int:
        return self._code


def answer(effect: Status, request_id: str, *, control_plane: bool) -> Response:
    """The whole answer; control-plane bodies carry their RequestInfo (facts/control_plane §4)."""
    headers = _headers(effect)
    if isinstance(effect.body, str):
        return Response(effect.body, effect.status, headers, media_type="text/plain")
    if effect.body is not None:
        return json_response(effect.body, status=effect.status, headers=headers)
    code, message = _words(effect)
    body: dict[str, object] = {"error_code": code, "message": message}
    if control_plane:
        info = "type.googleapis.com/google.rpc.RequestInfo"
        body["details"] = [{"@type": info, "request_id": request_id, "serving_data": ""}]
    return json_response(body, status=effect.status, headers=headers)


async def on_injected_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, InjectedError)
    return answer(error.effect, request.scope["request_id"], control_plane=False)


def _words(effect: Status) -> tuple[str | int, str]:
    default: tuple[str | int, str] = PLAIN.get(effect.status, ("INTERNAL_ERROR", "Injected."))
    code, message = effect.error_code, effect.message
    return default[0] if code is None else code, default[1] if message is None else message


def _headers(effect: Status) -> dict[str, str]:
    after = effect.retry_after
    return {**effect.headers, **({} if after is None else {"Retry-After": str(after)})}
