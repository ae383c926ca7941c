"""What custom models are asked and answer (facts/data_plane §4).

The texts of the refusals are those of MLflow's scoring server (CODE), shortened where a GUESS says
so; that the code is always BAD_REQUEST is a GUESS.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from servemu.catalog.signatures import Column, Signature
from servemu.errors import BadRequest
from servemu.schemas.conversion import converted, parameter
from servemu_engine.base import JsonSchema

FORMATS = ("dataframe_records", "dataframe_split", "inputs", "instances")
REQUIRED_FORMAT = (
    "The input must be a JSON dictionary with exactly one of the input fields "
    "{'dataframe_records', 'dataframe_split', 'inputs', 'instances'}"
)
SCHEMAS: Mapping[str, JsonSchema] = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer"},
    "long": {"type": "integer"},
    "float": {"type": "number"},
    "double": {"type": "number"},
    "string": {"type": "string"},
    "binary": {"type": "string", "format": "byte"},
    "datetime": {"type": "string", "format": "date-time"},
}


@dataclass(frozen=True, slots=True)
class Asked:
    """Rows and parameters as the model would get them."""

    rows: Sequence[Any]
    params: Mapping[str, Any]

    def prompt(self) -> str:
        """As the engine for custom models reads it."""
        return json.dumps({"inputs": self.rows, "params": self.params})


def invalid(reason: str) -> BadRequest:
    """What MLflow says of an input that it cannot read."""
    return BadRequest(f"Invalid input. {reason}")


def read_inputs(body: bytes, signature: Signature) -> Asked:
    """The rows of a body, fitted to the signature. Raises `BadRequest`."""
    value = _dictionary(body)
    given = [name for name in value if name in FORMATS]
    if len(given) != 1:
        raise BadRequest(f"{REQUIRED_FORMAT}. Received dictionary with input fields: {given}.")
    rows = _rows(given[0], value[given[0]], signature)
    params = value.get("params") or {}
    if not isinstance(params, dict):
        raise invalid("params must be a dictionary.")  # GUESS
    known = {column.name: column for column in signature.params}
    fitted = {
        name: parameter(known[name], item) for name, item in params.items() if name in known
    }  # others are ignored, as MLflow does
    defaults = {name: column.default for name, column in known.items()}
    return Asked(_fitted(rows, signature), defaults | fitted)


def prediction_schema(signature: Signature) -> JsonSchema:
    """Of one prediction: a value, or an object where the outputs have names."""
    first = signature.outputs[0]
    if not first.name:
        return SCHEMAS[first.type]
    properties = {column.name: SCHEMAS[column.type] for column in signature.outputs}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _dictionary(body: bytes) -> dict[str, Any]:
    try:
        value = from_json(body)
    except ValueError as error:
        raise invalid(
            f"Ensure that input is a valid JSON formatted string. Error: '{error}'"
        ) from None
    if isinstance(value, dict):
        return value
    received = "a list" if isinstance(value, list) else f"unexpected input type '{type(value)}'"
    raise invalid(f"{REQUIRED_FORMAT}. Received {received}.")


def _rows(name: str, value: Any, signature: Signature) -> list[Any]:
    match name:
        case "dataframe_split":
            return _split(value)
        case "dataframe_records":
            return _records(value)
    named = [column.name for column in signature.inputs if column.name]
    if isinstance(value, dict):
        return _columnar(value)
    values = value if isinstance(value, list) else [value]
    if len(named) == 1 and not any(isinstance(one, dict) for one in values):
        return [{named[0]: one} for one in values]  # the only column needs no name
    return values


def _split(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, dict):
        kind = "list" if isinstance(value, list) else f"type {type(value)}"
        raise invalid(f"Dataframe split format must be a dictionary. Got {kind}.")
    if "data" not in value or set(value) - {"columns", "data", "index"}:
        raise invalid(
            "Dataframe split format must have 'data' field and optionally 'columns' and 'index' "
            f"fields. Got {set(value)}.'"
        )
    data = value["data"]
    if not isinstance(data, list) or not all(isinstance(row, list) for row in data):
        raise _no_split("data must be a list of lists")
    width = max(map(len, data), default=0)
    columns = value.get("columns") or [str(number) for number in range(width)]
    if not isinstance(columns, list) or (data and len(columns) != width):
        shown = len(columns) if isinstance(columns, list) else 0
        raise _no_split(f"{shown} columns passed, passed data had {width} columns")
    return [dict(zip(map(str, columns), row, strict=False)) for row in data]


def _no_split(why: str) -> BadRequest:
    return invalid(
        "Provided dataframe_split field is not a valid dataframe representation in 'split' "
        f"format. Error: '{why}'"
    )


def _records(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        kind = "dictionary" if isinstance(value, dict) else f"type {type(value)}"
        raise invalid(f"Dataframe records format must be a list of records. Got {kind}.")
    if not all(isinstance(row, dict) for row in value):
        raise invalid(
            "Provided dataframe_records field is not a valid dataframe representation in "
            "'records' format. Error: 'a record must be a dictionary'"
        )
    return value


def _columnar(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Columns to rows; a value that is no list is a column of one."""
    columns = {name: item if isinstance(item, list) else [item] for name, item in value.items()}
    if len({len(column) for column in columns.values()}) > 1:
        raise invalid("The length of values for each input/column name are not the same")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _fitted(rows: list[Any], signature: Signature) -> list[Any]:
    """Each row with the columns of the signature, converted; others are dropped, as MLflow does."""
    if not signature.inputs:
        return rows
    if not signature.inputs[0].name:
        return [_unnamed(signature.inputs[0], row) for row in rows]
    _check_columns(rows, signature.inputs)
    return [
        {
            column.name: converted(column, row[column.name])
            for column in signature.inputs
            if column.name in row
        }
        for row in rows
    ]


def _unnamed(column: Column, row: Any) -> Any:
    if isinstance(row, dict) and len(row) == 1:
        return converted(column, next(iter(row.values())))
    return row if isinstance(row, dict | list) else converted(column, row)


def _check_columns(rows: list[Any], columns: Sequence[Column]) -> None:
    given = list(dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row))
    has_others = any(not isinstance(row, dict) for row in rows)
    missing = [one.name for one in columns if one.required and (one.name not in given)]
    if not rows or not (missing or has_others):
        return
    known = {column.name for column in columns}
    extra = [name for name in given if name not in known]
    noted = f" Note that there were extra inputs: {extra}." if extra else ""
    shown = ", ".join(f"{one.name!r}: {one.type}" for one in columns)
    data = json.dumps(rows)[:200]
    named = missing or [column.name for column in columns]
    raise BadRequest(
        f"Failed to enforce schema of data '{data}' with schema '[{shown}]'. "
        f"Error: Model is missing inputs {named}.{noted}"
    )
