"""Reading a control-plane body: JSON text → schema, or the failure the service would answer."""

import json
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from servemu.errors import InvalidParameter, MalformedRequest

JSON_WORDS: Mapping[str, str] = {
    "tuple_type": "Input should be an array",
    "dict_type": "Input should be an object",
    "model_type": "Input should be an object",
}
"""Where pydantic's words are Python's."""

Schema = TypeVar("Schema", bound=BaseModel)

Where = Callable[[Sequence[str | int]], Sequence[str | int]]

SECRET = "_plaintext"
"""Fields that end so are write-only: no answer repeats them."""

MAX_DEPTH = 100
"""Of nested objects and arrays: protobuf's own limit, and far from Python's when rendered again."""


async def read_body(request: Request, schema: type[Schema]) -> Schema:
    """The body as `schema`. Raises `MalformedRequest` (not JSON) and `InvalidParameter`."""
    return parse(await read_object(request), schema)


async def read_object(request: Request) -> dict[str, object]:
    """The body as a JSON object. Raises `MalformedRequest`.

    An empty body is an empty object, as protobuf's JSON mapping has it: what is then missing is
    reported by name.
    """
    given = await read_json(request, finite=True)
    if not isinstance(given, dict):
        raise MalformedRequest
    return given


async def read_json(request: Request, *, finite: bool = False) -> object:
    """The body as any JSON. Not `finite`: also with NaN, which a schema refuses by name. Raises
    `MalformedRequest`.
    """
    raw = await request.body()
    try:
        given: object = json.loads(raw) if raw.strip() else {}
        _check(given, MAX_DEPTH, finite)
        return given
    except (ValueError, RecursionError):
        raise MalformedRequest from None


def parse(given: dict[str, object], schema: type[Schema]) -> Schema:
    """The object as `schema`. Raises `InvalidParameter` for the first field that does not fit.

    The real texts are not known (facts/control_plane §9); status and code are its GUESS.
    """
    try:
        return schema.model_validate(given)
    except ValidationError as error:
        raise refusal(error) from None


def refusal(error: ValidationError, where: Where = lambda location: location) -> InvalidParameter:
    """For the first field that does not fit. `where`: from pydantic's location to the wire's."""
    first = error.errors(include_url=False)[0]
    field = _path(where(first["loc"]))
    if first["type"] == "missing":
        return InvalidParameter(f"Missing required field: {field}")
    shown = _shown(field, first["input"])
    problem = JSON_WORDS.get(first["type"], first["msg"])
    return InvalidParameter(f"Invalid value for field '{field}': {problem} (given: {shown})")


def _shown(field: str, given: object) -> str:
    """What was given, unless there may be a secret in it."""
    text = json.dumps(given, default=str, ensure_ascii=False)
    return "a secret" if SECRET in field or SECRET in text else text[:200]


def _check(value: object, depth: int, finite: bool) -> None:
    """What Python's parser lets through although no answer could carry it: NaN, numbers beyond
    a double, half a surrogate pair, endless nesting. Raises `ValueError`.
    """
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, float) and finite and not isfinite(value):
        raise ValueError(value)
    elif isinstance(value, dict | list):
        if depth == 0:
            raise ValueError("nested too deeply")
        for item in value:
            _check(item, depth - 1, finite)
        for item in value.values() if isinstance(value, dict) else ():
            _check(item, depth - 1, finite)


def _path(location: Sequence[str | int]) -> str:
    """`('config', 'routes', 0)` → `config.routes[0]`."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".")
