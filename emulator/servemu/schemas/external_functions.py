"""`POST /api/2.0/external-function` (facts/control_plane §1.1): a call through a connection."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Json

from servemu.schemas.wire import Wire


def _empty_is_absent(given: Any) -> Any:
    return None if given == "" else given


Encoded = Annotated[Json[dict[str, Any]] | None, BeforeValidator(_empty_is_absent)]
"""An object, as a JSON string."""


class ExternalFunction(Wire):
    connection_name: str
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    headers: Encoded = None
    body: Annotated[Json[Any] | None, BeforeValidator(_empty_is_absent), Field(alias="json")] = None
    params: Encoded = None
    sub_domain: Annotated[str, Field(pattern=r"^[a-zA-Z0-9-]+(\.[a-zA-Z0-9-]+)*$")] | None = None
