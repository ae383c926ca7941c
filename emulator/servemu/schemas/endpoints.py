"""Requests of the control plane: create, update config, tags (facts/control_plane §1, §2).

Unknown fields are ignored, as the service's own gateway does; the data plane is the strict one.
"""

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError


def _no_boolean(given: Any) -> Any:
    if isinstance(given, bool):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return given


Int64 = Annotated[int, BeforeValidator(_no_boolean), Field(le=2**63 - 1)]
"""May arrive as a JSON string (Go clients, facts/control_plane §2). `true` is not 1."""
NotNegative = Annotated[Int64, Field(ge=0)]


class Wire(BaseModel):
    """What all bodies share."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, given: Any) -> Any:
        """As in protobuf's JSON mapping."""
        if not isinstance(given, dict):
            return given
        return {key: value for key, value in given.items() if value is not None}


class Tag(Wire):
    key: str = Field(min_length=1)
    value: str = ""


class ServedEntityInput(Wire):
    """A served entity as it is asked for. `model_name` and `model_version` are the older words."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    name: str | None = None
    entity_name: str | None = None
    entity_version: str | None = None
    external_model: dict[str, Any] | None = None
    min_provisioned_throughput: Int64 | None = None
    max_provisioned_throughput: Int64 | None = None
    provisioned_model_units: NotNegative | None = None
    burst_scaling_enabled: StrictBool | None = None
    workload_size: str | None = None
    workload_type: str | None = None
    scale_to_zero_enabled: StrictBool | None = None
    min_provisioned_concurrency: NotNegative | None = None
    max_provisioned_concurrency: NotNegative | None = None
    environment_vars: dict[str, str] | None = None
    instance_profile_arn: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_served_model(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        renamed = {"model_name": "entity_name", "model_version": "entity_version"}
        return {renamed.get(key, key): value for key, value in given.items()}

    @field_validator("entity_version", mode="before")
    @classmethod
    def _version_may_be_a_number(cls, given: Any) -> Any:
        is_int = isinstance(given, int) and not isinstance(given, bool)
        return str(given) if is_int else given


class RouteInput(Wire):
    traffic_percentage: Annotated[Int64, Field(ge=0, le=100)]
    served_entity_name: str | None = None
    served_model_name: str | None = None

    @property
    def target(self) -> str | None:
        return self.served_entity_name or self.served_model_name


class TrafficConfigInput(Wire):
    routes: tuple[RouteInput, ...] = ()


class ConfigInput(Wire):
    """`config` of a create, or the whole body of an update. Its `name` is accepted and ignored."""

    served_entities: tuple[ServedEntityInput, ...] | None = None
    served_models: tuple[ServedEntityInput, ...] | None = None
    traffic_config: TrafficConfigInput | None = None

    @property
    def entities(self) -> tuple[ServedEntityInput, ...]:
        return self.served_entities or self.served_models or ()


class CreateEndpoint(Wire):
    name: str
    config: ConfigInput | None = None
    tags: tuple[Tag, ...] = ()
    description: str = Field("", max_length=1000)
    route_optimized: StrictBool = False
    budget_policy_id: str | None = None
    ai_gateway: dict[str, Any] | None = None
    email_notifications: dict[str, Any] | None = None
    rate_limits: tuple[dict[str, Any], ...] | None = None
    telemetry_config: dict[str, Any] | None = None


class PatchTags(Wire):
    add_tags: tuple[Tag, ...] = ()
    delete_tags: tuple[str, ...] = ()
