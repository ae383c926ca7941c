"""Decoding a data-plane body as the real service does: strictly, with errors in the words of Go."""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, from_json

from servemu.errors import BadRequest, MalformedRequest
from servemu_engine.errors import PromptTooLong, RequestRefused

PositiveInt = Annotated[int, Field(gt=0, le=2**31 - 1)]

Item = TypeVar("Item")
Items = Annotated[list[Item], FailFast()]
"""A list that is read up to its first wrong item: four MB of wrong ones would take half a minute
to tell of.
"""


def _to_first_wrong(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    wrong = next((key for key, item in value.items() if not isinstance(item, str)), None)
    return value if wrong is None else {wrong: value[wrong]}


Pairs = Annotated[dict[str, str], BeforeValidator(_to_first_wrong)]
"""A map of strings to strings, that tells of one wrong value as `Items` does."""

GO_TYPES = {
    "string_type": "string",
    "int_type": "int",
    "int_from_float": "int",
    "float_type": "float64",
    "bool_type": "bool",
    "list_type": "[]interface {}",
    "dict_type": "map[string]interface {}",
    "model_type": "map[string]interface {}",
}
"""pydantic's error type → Go type of the field. The names are a GUESS, unlike the sentence."""


class Body(BaseModel):
    """A JSON object of the wire: no unknown fields, no coercion; null means absent, as in Go.

    Of the unknown fields the first is told of, however many there are.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        names = _names(cls)
        known = {key: item for key, item in value.items() if item is not None and key in names}
        unknown = next((key for key in value if key not in names), None)
        return known if unknown is None else {**known, unknown: value[unknown]}


@cache
def _names(schema: type[Body]) -> frozenset[str]:
    """Of the fields, as they stand on the wire."""
    return frozenset(field.alias or name for name, field in schema.model_fields.items())


Request = TypeVar("Request", bound=Body)


def refuse(reason: str) -> BadRequest:
    """A 400 in the words of the model server (facts/data_plane §2.5: the newline is real)."""
    return BadRequest(f"Bad request: {reason}\n")


def refuse_prompt(error: RequestRefused) -> BadRequest:
    """What the engine said of a prompt. A prompt that is too long: the beginning is LIVE, the rest
    a GUESS (facts/data_plane §2.5).
    """
    if isinstance(error, PromptTooLong):
        return refuse(
            f"prompt token count ({error.num_tokens}) cannot exceed {error.limit}. "
            "Please reduce the length of your prompt."
        )
    return refuse(str(error))


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises `MalformedRequest` (not JSON), `BadRequest` (no object);
    that the model server says it so is a GUESS (facts/data_plane §5, bad JSON)."""
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise MalformedRequest from None
    if not isinstance(value, dict):
        raise refuse(f"json: cannot unmarshal {_kind(value)} into Go value of type map[string]any")
    return value


def decode(schema: type[Request], value: Mapping[str, Any]) -> Request:
    """The object as `schema`. Raises `BadRequest` for the first thing wrong with it.

    As a streaming decoder meets them: first what does not decode (unknown field, wrong type), in
    the order of the body; then what is missing or out of range.
    """
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        wrong = error.errors(include_url=False)
    undecodable = [e for e in wrong if e["type"] == "extra_forbidden" or e["type"] in GO_TYPES]
    if undecodable:
        first = min(undecodable, key=lambda e: _position(value, e["loc"]))
        raise refuse(_decoding_error(schema.__name__, first))
    raise refuse(_range_error(wrong[0]))


def _position(value: Any, location: tuple[int | str, ...]) -> list[int]:
    """Where in the text of the body a location is: the ordinal of each step into it."""
    position = []
    for step in location:
        if isinstance(value, Mapping) and step in value:
            position.append(list(value).index(step))
        elif isinstance(value, list) and isinstance(step, int):
            position.append(step)
        else:
            break
        value = value[step]
    return position


def _decoding_error(struct: str, error: ErrorDetails) -> str:
    """`json: unknown field "seed"` is LIVE; the other sentence is Go's, its names are a GUESS."""
    fields = [str(step) for step in error["loc"] if isinstance(step, str)]
    if error["type"] == "extra_forbidden":
        return f'json: unknown field "{fields[-1]}"'
    kind = _kind(error["input"])
    if kind == "number" and GO_TYPES[error["type"]] == "int":
        kind = f"number {error['input']}"
    path = ".".join([struct, *fields])
    return (
        f"json: cannot unmarshal {kind} into Go struct field {path} "
        f"of type {GO_TYPES[error['type']]}"
    )


def _range_error(error: ErrorDetails) -> str:
    """`<field> must be …`: a GUESS (facts/data_plane §2.5, range errors)."""
    path = ".".join(str(step) for step in error["loc"])
    if error["type"] == "missing":
        return f"{path} must be given"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should ")
    return f"{path} must {message}"


def _kind(value: object) -> str:
    """Go's word for a JSON value."""
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"
