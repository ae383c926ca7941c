"""Requests of the `/pt` routes: endpoints sized in model units (facts/control_plane §2.4)."""

from pydantic import StrictBool

from servemu.schemas.endpoints import (
    ConfigInput,
    EntityVersion,
    ServedEntityInput,
    Tag,
    TrafficConfigInput,
)
from servemu.schemas.gateway import AiGateway
from servemu.schemas.telemetry import EmailNotifications
from servemu.schemas.wire import NotNegative, Wire


class PtServedModel(Wire):
    name: str | None = None
    entity_name: str
    entity_version: EntityVersion | None = None
    provisioned_model_units: NotNegative
    burst_scaling_enabled: StrictBool | None = None


class PtConfig(Wire):
    served_entities: tuple[PtServedModel, ...] = ()
    traffic_config: TrafficConfigInput | None = None

    def as_config(self) -> ConfigInput:
        """The same as the older routes have it."""
        entities = [ServedEntityInput(**entity.model_dump()) for entity in self.served_entities]
        return ConfigInput(served_entities=tuple(entities), traffic_config=self.traffic_config)


class CreatePtEndpoint(Wire):
    name: str
    config: PtConfig
    ai_gateway: AiGateway | None = None
    budget_policy_id: str | None = None
    email_notifications: EmailNotifications | None = None
    tags: tuple[Tag, ...] = ()


class UpdatePtConfig(Wire):
    config: PtConfig
