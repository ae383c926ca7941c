"""Requests of the control plane: create, update config, tags (facts/control_plane §1, §2)."""

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, StrictBool, model_validator

from servemu.schemas.external_models import ExternalModel
from servemu.schemas.gateway import AiGateway, RateLimit
from servemu.schemas.telemetry import EmailNotifications, Telemetry
from servemu.schemas.wire import Int64, NotNegative, Wire


def _number_as_text(given: object) -> object:
    is_int = isinstance(given, int) and not isinstance(given, bool)
    return str(given) if is_int else given


EntityVersion = Annotated[str, BeforeValidator(_number_as_text)]
"""Samples sometimes send a number (facts/control_plane §2.4)."""
Percentage = Annotated[Int64, Field(ge=0, le=100)]


class Tag(Wire):
    key: str = Field(min_length=1)
    value: str = ""


class ServedEntityInput(Wire):
    """A served entity as it is asked for. `model_name` and `model_version` are the older words."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    name: str | None = None
    entity_name: str | None = None
    entity_version: EntityVersion | None = None
    external_model: ExternalModel | None = None
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


class RouteInput(Wire):
    traffic_percentage: Percentage
    served_entity_name: str | None = None
    served_model_name: str | None = None

    @property
    def target(self) -> str | None:
        return self.served_entity_name or self.served_model_name


class TrafficConfigInput(Wire):
    routes: tuple[RouteInput, ...] = ()


class AutoCaptureInput(Wire):
    """The legacy inference table."""

    catalog_name: str | None = None
    schema_name: str | None = None
    table_name_prefix: str | None = None
    enabled: StrictBool = True


class ConfigInput(Wire):
    """`config` of a create, or the whole body of an update. Its `name` is accepted and ignored."""

    served_entities: tuple[ServedEntityInput, ...] | None = None
    served_models: tuple[ServedEntityInput, ...] | None = None
    traffic_config: TrafficConfigInput | None = None
    auto_capture_config: AutoCaptureInput | None = None

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
    usage_policy_id: str | None = None
    ai_gateway: AiGateway | None = None
    email_notifications: EmailNotifications | None = None
    rate_limits: tuple[RateLimit, ...] | None = None
    telemetry_config: Telemetry | None = None


class PatchTags(Wire):
    add_tags: tuple[Tag, ...] = ()
    delete_tags: tuple[str, ...] = ()
