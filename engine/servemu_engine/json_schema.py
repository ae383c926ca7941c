"""JSON schemas made finite: what a stand-in may write where the schema sets no bound.

A model of 135M parameters does not always find the end of a string, a number or a list. The real
service's subset has no keyword that bounds them (facts/data_plane §2.4), so every answer is bounded
here: it validates against the schema that was given, and it ends.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from servemu_engine.base import JsonSchema
from servemu_engine.errors import InvalidPrompt

Json = dict[str, Any]

ANY_OBJECT: JsonSchema = {"type": "object"}
_LARGEST_INTEGER = 2**53 - 1
_LARGEST_NUMBER = 1e9
_SMALLEST_STEP = 1e-6
_OPEN_KEY = "^[A-Za-z_]{1,24}$"
_OF_OBJECTS = frozenset(("properties", "required", "additionalProperties"))
_SCALARS = ("string", "integer", "number", "boolean", "null")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Most of what an answer holds where its schema sets no bound. All of it GUESS: no model."""

    characters: int = 512
    """Of a string."""
    items: int = 16
    """Of a list."""
    open_properties: int = 8
    """Of an object without `properties`."""
    open_depth: int = 2
    """Objects and lists inside each other where the schema admits anything."""


DEFAULT_BOUNDS = Bounds()


def finite(schema: JsonSchema, bounds: Bounds = DEFAULT_BOUNDS) -> Json:
    """A narrower schema whose values are all finite. Raises `InvalidPrompt` if nothing is left.

    Objects with `properties` get no others. Keywords outside of the subset are dropped: the wire
    refuses them before.
    """
    if "enum" in schema:
        return {"enum": _admitted(schema, schema["enum"])}
    if "const" in schema:
        return {"const": _admitted(schema, [schema["const"]])[0]}
    kinds = types_of(schema)
    if kinds is None:
        return _anything(bounds, bounds.open_depth)
    choices = [_of_type(kind, schema, bounds) for kind in kinds]
    return choices[0] if len(choices) == 1 else {"anyOf": choices}


def types_of(schema: JsonSchema) -> Sequence[str] | None:
    """The types a value may have; None: any. Words about properties without a type mean an object:
    any other value would do, but no model asks for that."""
    kind = schema.get("type")
    if isinstance(kind, str):
        return (kind,)
    if isinstance(kind, list):
        return tuple(str(one) for one in kind)
    if not _OF_OBJECTS.isdisjoint(schema):
        return ("object",)
    return ("array",) if "items" in schema else None


def properties_of(schema: JsonSchema) -> Mapping[str, JsonSchema]:
    """The named properties, and those that are only required. Raises `InvalidPrompt`."""
    properties = dict(schema.get("properties", {}))
    for name in schema.get("required", ()):
        if name not in properties:
            if schema.get("additionalProperties") is False:
                raise InvalidPrompt(f'Invalid JSON schema - required "{name}" is not a property')
            properties[name] = {}
    return properties


def _of_type(kind: str, schema: JsonSchema, bounds: Bounds) -> Json:
    match kind:
        case "object":
            return _object(schema, bounds)
        case "array":
            items = schema.get("items")
            item = _anything(bounds, 0) if not items else finite(items, bounds)
            return {"type": "array", "items": item, "maxItems": bounds.items}
        case _ if kind in _SCALARS:
            return _scalar(kind, bounds)
    raise InvalidPrompt(f'Invalid JSON schema - the type "{kind}" is not supported')


def _object(schema: JsonSchema, bounds: Bounds) -> Json:
    properties = properties_of(schema)
    if not properties and schema.get("additionalProperties") is not False:
        return _open_object(bounds, bounds.open_depth)
    return {
        "type": "object",
        "properties": {name: finite(one, bounds) for name, one in properties.items()},
        "required": list(schema.get("required", ())),
        "additionalProperties": False,
    }


def _scalar(kind: str, bounds: Bounds) -> Json:
    match kind:
        case "string":
            return {"type": "string", "maxLength": bounds.characters}
        case "integer":
            return {"type": "integer", "minimum": -_LARGEST_INTEGER, "maximum": _LARGEST_INTEGER}
        case "number":
            most = {"minimum": -_LARGEST_NUMBER, "maximum": _LARGEST_NUMBER}
            return {"type": "number", **most, "multipleOf": _SMALLEST_STEP}
    return {"type": kind}


def _open_object(bounds: Bounds, depth: int) -> Json:
    return {
        "type": "object",
        "patternProperties": {_OPEN_KEY: _anything(bounds, depth - 1)},
        "additionalProperties": False,
        "maxProperties": bounds.open_properties,
    }


def _anything(bounds: Bounds, depth: int) -> Json:
    """Of any type; objects and lists at most `depth` times inside each other."""
    choices = [_scalar(kind, bounds) for kind in _SCALARS]
    if depth > 0:
        choices.append(_open_object(bounds, depth))
        inner = _anything(bounds, depth - 1)
        choices.append({"type": "array", "items": inner, "maxItems": bounds.items})
    return {"anyOf": choices}


def _admitted(schema: JsonSchema, values: Sequence[Any]) -> list[Any]:
    """Those of `values` that the rest of the schema admits. Raises `InvalidPrompt`."""
    rest = {word: said for word, said in schema.items() if word != "enum"}
    admitted = [value for value in values if _admits(rest, value)]
    if not admitted:
        keyword = "enum" if "enum" in schema else "const"
        raise InvalidPrompt(f"Invalid JSON schema - no value of the {keyword} has the type")
    return admitted


def _admits(schema: JsonSchema, value: object) -> bool:
    """By the subset's own words (facts/data_plane §2.4)."""
    kinds = types_of({"type": schema["type"]}) if "type" in schema else None
    if kinds is not None and not any(_is_a(value, kind) for kind in kinds):
        return False
    if "enum" in schema and not any(_is_alike(value, one) for one in schema["enum"]):
        return False
    if "const" in schema and not _is_alike(value, schema["const"]):
        return False
    if isinstance(value, list):
        return all(_admits(schema.get("items", {}), item) for item in value)
    return not isinstance(value, dict) or _admits_object(schema, value)


def _admits_object(schema: JsonSchema, value: Mapping[str, object]) -> bool:
    properties = schema.get("properties", {})
    is_closed = schema.get("additionalProperties") is False
    return (
        value.keys() >= set(schema.get("required", ()))
        and not (is_closed and value.keys() - properties.keys())
        and all(_admits(one, value[name]) for name, one in properties.items() if name in value)
    )


def _is_alike(one: object, other: object) -> bool:
    """As JSON has it: true is not 1."""
    return one == other and isinstance(one, bool) is isinstance(other, bool)


def _is_a(value: object, kind: str) -> bool:
    match value:
        case None:
            return kind == "null"
        case bool():
            return kind == "boolean"
        case int():
            return kind in ("integer", "number")
        case float():
            return kind == "number" or (kind == "integer" and value.is_integer())
        case str():
            return kind == "string"
        case list():
            return kind == "array"
    return kind == "object"
