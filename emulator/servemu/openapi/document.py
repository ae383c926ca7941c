"""The parts that both documents are put together from: schemas, operations, answers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from servemu.openapi.answers import Error
from servemu.openapi.operations import BYTES, SSE, TEXT, XML, Operation

Json = dict[str, Any]

OPENAPI = "3.1.0"
REF = "#/components/schemas/{model}"
SECURITY: Json = {"token": {"type": "http", "scheme": "bearer"}}


def components(schemas: Iterable[type[BaseModel]]) -> Json:
    """`components`: the schemas with all they refer to, and how callers identify themselves."""
    wanted = [(schema, "validation") for schema in dict.fromkeys((*schemas, Error))]
    _, definitions = models_json_schema(wanted, ref_template=REF)  # type: ignore[arg-type]
    return {"schemas": definitions["$defs"], "securitySchemes": SECURITY}


def operation_object(operation: Operation, summary: str, has_body: bool) -> Json:
    """An OpenAPI operation but for its parameters."""
    described: Json = {"summary": summary, "responses": responses(operation)}
    if has_body:
        content = {operation.media_type: {"schema": any_of(operation.takes)}}
        described["requestBody"] = {"required": bool(operation.takes), "content": content}
    return described


def responses(operation: Operation) -> Json:
    """200, and the failures: every 4xx and the 503 of a model server that is gone."""
    is_text = operation.answer_type in (TEXT, BYTES)
    schema = {"type": "string"} if is_text else any_of(operation.answers)
    content: Json = {operation.answer_type: {"schema": schema}}
    if operation.streams:
        content[SSE] = {}  # 3.1 has no word for the schema of an event
    refused = {} if operation.error_type == XML else {"schema": any_of((operation.error,))}
    failed = {operation.error_type: refused}
    done: Json = {"200": {"description": "OK", "content": content}}
    return {
        **({"204": {"description": "Done"}} if operation.is_empty else done),
        "4XX": {"description": "Refused", "content": failed},
        **(
            {"503": {"description": "The model server is gone", "content": failed}}
            if operation.streams
            else {}
        ),
    }


def any_of(schemas: Sequence[type[BaseModel]]) -> Json:
    """A reference, or a choice of them; any object where nothing is known."""
    refs = [{"$ref": REF.format(model=schema.__name__)} for schema in schemas]
    match refs:
        case []:
            return {"type": "object"}
        case [one]:
            return one
    return {"anyOf": refs}


def envelope(info: Mapping[str, str], host: str, paths: Json, used: Iterable[Operation]) -> Json:
    """A whole document."""
    schemas = [
        schema
        for operation in used
        for schema in (*operation.answers, *operation.takes, operation.error)
    ]
    return {
        "openapi": OPENAPI,
        "info": dict(info),
        "servers": [{"url": host}],
        "paths": paths,
        "components": components(schemas),
        "security": [{"token": []}],
    }
