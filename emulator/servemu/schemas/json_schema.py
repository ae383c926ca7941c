"""The JSON schemas that structured answers and tools may have (facts/data_plane §2.4, §2.5)."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from servemu.errors import BadRequest

MAX_DEPTH = 16
"""Of schemas inside schemas: ours, nothing is known of a limit."""
MAX_VALUES = 1000
"""Of an enum: ours too."""
MAX_CHARACTERS = 20_000
"""Of all names and fixed values. Ours: more would hold up every step of the model, for all."""

UNSUPPORTED = (
    *("pattern", "anyOf", "oneOf", "allOf", "prefixItems", "$ref"),
    *("not", "if", "then", "else", "patternProperties", "propertyNames", "dependentRequired"),
    *("dependentSchemas", "dependencies", "contains", "unevaluatedProperties"),
    *("unevaluatedItems", "$dynamicRef", "$recursiveRef"),
)
"""The first six are DOC; the others, which no answer here could keep either, a GUESS."""
_NUMBER = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
UNSUPPORTED_BY_TYPE: Mapping[str, tuple[str, ...]] = {
    "number": _NUMBER,
    "integer": _NUMBER,
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems", "uniqueItems", "minContains", "maxContains"),
    "object": ("minProperties", "maxProperties"),
    "boolean": (),
    "null": (),
}
"""`minimum` and `maxItems` are LIVE, the others a GUESS by analogy."""
_UNSUPPORTED_UNTYPED = tuple(word for words in UNSUPPORTED_BY_TYPE.values() for word in words)
"""Where no type is said, they would hold for some of the values: GUESS."""


def invalid(reason: str) -> BadRequest:
    """The sentence is LIVE. So is its newline, in two of four records; that it is always there is
    a GUESS. Reasons are LIVE for the first keywords of a kind (facts/data_plane §2.5), those about
    the form of a schema a GUESS."""
    return BadRequest(f"Invalid JSON schema - {reason}\n")


def check_schema(schema: Mapping[str, Any], max_keys: int, *, subset: bool = True) -> None:
    """Raises `BadRequest` for the first thing outside of the subset, and for too many keys. Not
    `subset`: only for what is no schema.

    A key is a property at any depth, named or only required; how the service counts, and its text,
    are a GUESS.
    """
    num_keys = num_characters = 0
    for one in _checked(schema, 1, subset):
        names = {*one.get("properties", ()), *one.get("required", ())}
        fixed = [*one.get("enum", ()), one.get("const", "")]
        num_keys += len(names)
        num_characters += sum(map(len, names)) + len(json.dumps(fixed, ensure_ascii=False))
    if num_keys > max_keys:
        raise invalid(f"the schema has {num_keys} keys, at most {max_keys} are supported")
    if num_characters > MAX_CHARACTERS:
        raise invalid(f"its names and values have more than {MAX_CHARACTERS} characters")


def _checked(schema: object, depth: int, subset: bool) -> Iterator[Mapping[str, Any]]:
    """The schema and all within it, each checked before it is given."""
    if not isinstance(schema, Mapping):
        raise invalid("a schema must be an object")
    if depth > MAX_DEPTH:
        raise invalid(f"the schema is nested more than {MAX_DEPTH} deep")
    if subset:
        _check_subset(schema)
    _check_form(schema)
    yield schema
    for inner in schema.get("properties", {}).values():
        yield from _checked(inner, depth + 1, subset)
    if "items" in schema:
        yield from _checked(schema["items"], depth + 1, subset)


def _check_subset(schema: Mapping[str, Any]) -> None:
    for keyword in UNSUPPORTED:
        if keyword in schema:
            raise invalid(f'the "{keyword}" keyword is not supported')
    for keyword in () if "type" in schema else _UNSUPPORTED_UNTYPED:
        if keyword in schema:
            raise invalid(f'the "{keyword}" keyword is not supported')
    for kind in _types(schema):
        for keyword in UNSUPPORTED_BY_TYPE[kind]:
            if keyword in schema:
                raise invalid(f"{kind} types do not support {keyword}")
    if schema.get("additionalProperties", False) is not False:
        raise invalid('the "additionalProperties" keyword must be False or not specified')


def _check_form(schema: Mapping[str, Any]) -> None:
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(properties, Mapping):
        raise invalid('the "properties" keyword must be an object')
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise invalid('the "required" keyword must be a list of strings')
    values = schema.get("enum", [None])
    if not isinstance(values, list) or not 0 < len(values) <= MAX_VALUES:
        raise invalid(f'the "enum" keyword must be a list of 1 to {MAX_VALUES} values')


def _types(schema: Mapping[str, Any]) -> list[str]:
    """Raises `BadRequest` unless it is a type, or a list of one and "null" (DOC)."""
    kind = schema.get("type", [])
    kinds = kind if isinstance(kind, list) else [kind]
    if not all(isinstance(one, str) and one in UNSUPPORTED_BY_TYPE for one in kinds):
        raise invalid('the "type" keyword must be one of ' + ", ".join(UNSUPPORTED_BY_TYPE))
    if "type" in schema and isinstance(kind, list) and (len(kinds) != 2 or "null" not in kinds):
        raise invalid('lists of types are not supported but [type, "null"]')
    return kinds
