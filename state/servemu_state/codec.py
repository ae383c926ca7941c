"""Records ↔ the JSON text that the tables keep."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from json import JSONDecoder, JSONEncoder
from typing import Any

from .records import Deployment, EntityState, JsonObject, Route, ServedEntity

_ENTITY_FIELDS = tuple(field.name for field in fields(ServedEntity))


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON: {value!r}")


# Made once: `json.dumps` with options makes an encoder at every call.
encode = JSONEncoder(separators=(",", ":"), default=_plain).encode
decode = JSONDecoder().decode


def encode_entities(entities: tuple[ServedEntity, ...]) -> str:
    """The served entities as a JSON array of objects, keyed by the record's fields."""
    return encode([{name: getattr(entity, name) for name in _ENTITY_FIELDS} for entity in entities])


@lru_cache(maxsize=16384)  # most reads find what was there before, and records never change
def decode_entities(text: str) -> tuple[ServedEntity, ...]:
    """The reverse of `encode_entities`; a field newer than the row takes its default."""
    return tuple(
        ServedEntity(state=EntityState(entity.pop("state")), **entity) for entity in decode(text)
    )


def encode_routes(routes: tuple[Route, ...]) -> str:
    """The routes as a JSON array of `[served_entity, traffic_percentage]`."""
    return encode([(route.served_entity, route.traffic_percentage) for route in routes])


def encode_optional(value: JsonObject | None) -> str | None:
    """A JSON object, or None for SQL's NULL."""
    return None if value is None else encode(value)


def decode_deployment(columns: Sequence[Any]) -> Deployment | None:
    """A deployment from its seven columns; None where the outer join found no row."""
    version, entities, routes, started_at, stage, due_at, fault = columns
    if version is None:
        return None
    return Deployment(
        config_version=version,
        entities=decode_entities(entities),
        routes=tuple(Route(*route) for route in decode(routes)),
        started_at=started_at,
        stage=stage,
        due_at=due_at,
        fault=None if fault is None else decode(fault),
    )
