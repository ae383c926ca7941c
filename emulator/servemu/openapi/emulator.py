"""The OpenAPI document of the emulator, out of its table of routes."""

import re
from collections.abc import Sequence
from typing import Any

from starlette.routing import BaseRoute, Route

from servemu import __version__
from servemu.openapi.document import envelope, operation_object
from servemu.openapi.operations import OPERATIONS, Operation
from servemu.routes.late import viewed

Json = dict[str, Any]

WITH_BODY = {"POST", "PUT", "PATCH"}
PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")


def document(routes: Sequence[BaseRoute], host: str) -> Json:
    """Every route that is served, also one that `OPERATIONS` has no row for."""
    paths: dict[str, Json] = {}
    used = []
    for route in routes:
        if not isinstance(route, Route):
            continue
        path = PARAMETER.sub(r"{\1}", route.path)
        for method in sorted((route.methods or set()) - {"HEAD"}):
            operation = OPERATIONS.get(f"{method} {path}", Operation())
            paths.setdefault(path, {})[method.lower()] = _operation(route, method, operation)
            used.append(operation)
    return envelope({"title": "servemu", "version": __version__}, host, paths, used)


def _operation(route: Route, method: str, operation: Operation) -> Json:
    has_body = method in WITH_BODY and (bool(operation.takes) or not operation.answers)
    summary = (viewed(route.endpoint).__doc__ or route.endpoint.__name__).partition("\n")[0]
    slug = re.sub(r"\W+", "_", route.path).strip("_")
    return {
        "operationId": f"{method.lower()}_{slug}",
        **operation_object(operation, summary, has_body),
        "parameters": [*_path_parameters(route.path), *_query_parameters(operation)],
    }


def _path_parameters(path: str) -> list[Json]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in PARAMETER.findall(path)
    ]


def _query_parameters(operation: Operation) -> list[Json]:
    number = {"type": "integer", "minimum": 1}
    return [
        {"name": name, "in": "query", "schema": schema}
        for names, schema in ((operation.query, number), (operation.texts, {"type": "string"}))
        for name in names
    ]
