"""Telemetry and e-mail notifications of an endpoint (facts/control_plane §2.6)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from servemu.schemas.wire import Wire

Feature = Literal[
    "TELEMETRY_FEATURE_LOGS",
    "TELEMETRY_FEATURE_TRACES",
    "TELEMETRY_FEATURE_METRICS",
    "TELEMETRY_FEATURE_INFERENCE_TABLE",
]
Fraction = Annotated[float, Field(ge=0, le=1)]


class TelemetryTables(Wire):
    """Unity Catalog tables that a new profile is made of."""

    logs_table: str | None = None
    metrics_table: str | None = None
    traces_table: str | None = None
    annotations_table: str | None = None


class TelemetryInferenceTable(Wire):
    name: str | None = None
    sampling_fraction: Fraction | None = None


class Telemetry(Wire):
    enabled_telemetry_features: tuple[Feature, ...] | None = None
    inference_table_config: TelemetryInferenceTable | None = None
    table_names: TelemetryTables | None = None
    telemetry_profile_id: str | None = None

    @model_validator(mode="after")
    def _old_profile_or_new(self) -> Self:
        """Rule: docstring of databricks-sdk `patch_telemetry_config`; text GUESS."""
        if self.table_names is not None and self.telemetry_profile_id is not None:
            raise PydanticCustomError(
                "telemetry", "telemetry_profile_id and table_names exclude each other"
            )
        return self


class PatchTelemetry(Wire):
    telemetry_config: Telemetry | None = None
    """None: the telemetry is removed."""


class EmailNotifications(Wire):
    on_update_success: tuple[str, ...] | None = None
    on_update_failure: tuple[str, ...] | None = None


class PatchNotifications(Wire):
    email_notifications: EmailNotifications | None = None
