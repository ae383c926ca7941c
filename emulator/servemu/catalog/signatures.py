"""Signatures of custom models: the columns they take and give, as MLflow declares them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from servemu.catalog.checks import CatalogInvalid

DataType = Literal["boolean", "integer", "long", "float", "double", "string", "binary", "datetime"]
TYPES: tuple[DataType, ...] = (
    *("boolean", "integer", "long", "float", "double", "string", "binary", "datetime"),
)
PARTS = ("inputs", "outputs", "params")


@dataclass(frozen=True, slots=True)
class Column:
    """One input, output or parameter. Without a name it is the only one of its kind."""

    type: DataType
    name: str = ""
    required: bool = True
    default: object = None
    """Of a parameter."""


@dataclass(frozen=True, slots=True)
class Signature:
    """Nothing declared: any input is taken, and a prediction is a number."""

    inputs: tuple[Column, ...] = ()
    outputs: tuple[Column, ...] = (Column("double"),)
    params: tuple[Column, ...] = ()


def read_signature(path: str, given: object) -> Signature:
    """`{inputs = [{name, type}], outputs = […], params = […]}`. Raises `CatalogInvalid`."""
    if not isinstance(given, Mapping) or not set(given) <= set(PARTS):
        raise CatalogInvalid(path, "signature", given, "a table with " + ", ".join(PARTS))
    parts = {part: _columns(path, part, columns) for part, columns in given.items()}
    return Signature(**parts)


def _columns(path: str, part: str, given: object) -> tuple[Column, ...]:
    key = f"signature.{part}"
    if not isinstance(given, list) or (part != "params" and not given):
        raise CatalogInvalid(path, key, given, "a list of tables with type, name, required")
    columns = tuple(_column(path, key, one) for one in given)
    if len(columns) > 1 and not all(column.name for column in columns):
        raise CatalogInvalid(path, key, given, "names for all, where there is more than one")
    return columns


def _column(path: str, key: str, given: Any) -> Column:
    if not isinstance(given, Mapping) or not set(given) <= {"type", "name", "required", "default"}:
        raise CatalogInvalid(path, key, given, "tables with type, name, required, default")
    if given.get("type") not in TYPES:
        raise CatalogInvalid(path, f"{key}.type", given.get("type"), " | ".join(TYPES))
    if not isinstance(given.get("name", ""), str) or not isinstance(
        given.get("required", True), bool
    ):
        raise CatalogInvalid(path, key, dict(given), "a string for name, a boolean for required")
    return Column(**given)
