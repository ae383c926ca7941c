"""Values of custom models' columns and parameters, as their types want them (CODE: MLflow 3.17)."""

import base64
import binascii
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from servemu.catalog.signatures import Column
from servemu.errors import BadRequest

Json = Any

PANDAS = {
    "boolean": "bool",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "string": "object",
    "binary": "object",
    "datetime": "datetime64[ns]",
}
"""The names of the types as errors show them."""


def _text(value: Json) -> Json:
    return value


def _binary(value: Json) -> Json:
    base64.b64decode(value, validate=True)
    return value


def _datetime(value: Json) -> Json:
    return datetime.fromisoformat(value).isoformat()


CONVERT: Mapping[str, Callable[[Json], Json]] = {
    "boolean": bool,
    "integer": int,
    "long": int,
    "float": float,
    "double": float,
    "string": _text,
    "binary": _binary,
    "datetime": _datetime,
}
TAKES: Mapping[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "string": (str,),
    "binary": (str,),
    "datetime": (str,),
}
"""What a parameter may be given as."""


def converted(column: Column, value: Json) -> Json:
    """The value as the column's type has it. Raises `BadRequest`; a missing value stays one."""
    if value is None:
        return None
    try:
        return CONVERT[column.type](value)
    except (ValueError, TypeError, OverflowError, binascii.Error) as error:
        raise BadRequest(
            "Invalid input. Data is not compatible with model signature. Failed to convert column "
            f"{column.name} to type '{PANDAS[column.type]}'. Error: '{error!r}'"
        ) from None


def parameter(column: Column, value: Json) -> Json:
    """The value of a parameter. Raises `BadRequest`."""
    kinds = TAKES[column.type]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise BadRequest(
            f"Can not safely convert `{type(value)}` to `DataType.{column.type}` for value "
            f"`{value}`"
        )
    return CONVERT[column.type](value)
