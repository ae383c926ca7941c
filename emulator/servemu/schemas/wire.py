"""What all bodies of the control plane share (facts/control_plane §2).

Unknown fields are ignored, as the service's own gateway does; the data plane is the strict one.
"""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


def _no_boolean(given: Any) -> Any:
    if isinstance(given, bool):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return given


Int64 = Annotated[int, BeforeValidator(_no_boolean), Field(le=2**63 - 1)]
"""May arrive as a JSON string (Go clients, facts/control_plane §2). `true` is not 1."""
NotNegative = Annotated[Int64, Field(ge=0)]


class Wire(BaseModel):
    """A body, or a part of one."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, given: Any) -> Any:
        """As in protobuf's JSON mapping."""
        if not isinstance(given, dict):
            return given
        return {key: value for key, value in given.items() if value is not None}

    def shown(self) -> dict[str, Any]:
        """What was given, as JSON."""
        return self.model_dump(mode="json", exclude_none=True)
