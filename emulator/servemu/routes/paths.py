"""Paths: a trailing slash changes nothing, and an unknown one gets the real 404 with a hint."""

import difflib
from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from servemu.errors import PathNotFound
from servemu.responses import error_response

KNOWN_ABSENT = {
    "/ai-gateway/": "servemu answers /ai-gateway/mlflow/v1 with the setting ai_gateway = true, "
    "and no other path of the Unity AI Gateway; the real 404 sends clients to /serving-endpoints.",
    "/api/ai-gateway/": "servemu does not emulate the Unity AI Gateway; the real 404 sends clients "
    "to /serving-endpoints.",
    "/api/2.1/unity-catalog/model-services": "servemu does not emulate the model services of the "
    "Unity AI Gateway; GET /api/2.0/serving-endpoints:foundation-models lists what is there.",
}
"""Paths that clients probe, and do without (facts/control_plane §1.2)."""


class Slashes:
    """MLflow asks for `…/serving-endpoints/`, the SDKs do not (facts/control_plane §1.1)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and len(scope["path"]) > 1:
            scope["path"] = scope["path"].rstrip("/") or "/"
        await self._app(scope, receive, send)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's 404 and 405. The message has no `/api/2.x` prefix, as the real one."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    shown = path.removeprefix("/api/2.0").removeprefix("/api/2.1")
    why = explain(path, request.app.routes)
    return error_response(PathNotFound(request.method, shown, why), request.scope["request_id"])


def explain(path: str, routes: Sequence[BaseRoute]) -> str:
    """For people: not emulated, and which routes are near."""
    for prefix, why in KNOWN_ABSENT.items():
        if path.startswith(prefix):
            return why
    known: dict[str, set[str]] = {}
    for route in routes:
        if isinstance(route, Route):
            known.setdefault(route.path, set()).update((route.methods or set()) - {"HEAD"})
    near = difflib.get_close_matches(path, known, n=3, cutoff=0.3)
    if not near:
        return "servemu does not emulate this path."
    shown = "; ".join(f"{'|'.join(sorted(known[path]))} {path}" for path in near)
    return f"servemu does not emulate this path and method. Near: {shown}"
