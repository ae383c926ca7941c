"""An endpoint's telemetry: who may have it, and what is kept of it (facts/control_plane §2.6).

The rules are the backend's as the Databricks CLI's test server has them.
"""

import uuid
from dataclasses import replace

from servemu.errors import InvalidParameter, UpdateInProgress
from servemu.lifecycle.gateway import with_setting
from servemu.lifecycle.kinds import is_external, latest
from servemu.schemas.telemetry import Telemetry
from servemu_state.records import ConfigUpdate, Endpoint, JsonObject, ServedEntity

INFERENCE_TABLE = "TELEMETRY_FEATURE_INFERENCE_TABLE"


def patch_telemetry(endpoint: Endpoint, asked: Telemetry | None, now: float) -> Endpoint:
    """None removes it. Raises `UpdateInProgress`, `InvalidParameter`."""
    if endpoint.config_update is ConfigUpdate.IN_PROGRESS:
        raise UpdateInProgress(
            f"Endpoint {endpoint.name} is currently updating. Wait for the update to complete "
            "before updating its telemetry configuration."
        )
    deployment = latest(endpoint)
    unsupported = why_unsupported(None if deployment is None else deployment.entities)
    if unsupported is not None:
        raise InvalidParameter(
            f"Telemetry configuration is not supported for endpoint type '{unsupported}'. "
            "This API only supports endpoints with custom served models."
        )
    shown = shown_telemetry(asked, endpoint.settings.get("telemetry_config"))
    settings = with_setting(endpoint, "telemetry_config", shown)
    return replace(endpoint, settings=settings, updated_at=now)


def why_unsupported(entities: tuple[ServedEntity, ...] | None) -> str | None:
    """The endpoint type that has no telemetry; None: it may have it."""
    if entities is None:
        return "NO_CONFIG"
    return "EXTERNAL_MODELS" if is_external(entities[0]) else None


def shown_telemetry(asked: Telemetry | None, before: JsonObject | None) -> JsonObject | None:
    """What becomes of it: table names are made a profile, neither they nor one changes nothing."""
    if asked is None:
        return None
    if asked.table_names is None and asked.telemetry_profile_id is None:
        return before
    body = asked.shown()
    tables = body.pop("table_names", None)
    if tables is not None:
        body["telemetry_profile_id"] = str(uuid.uuid4())
    features = asked.enabled_telemetry_features or (INFERENCE_TABLE,)  # none named: all (SDK)
    if tables is not None and "logs_table" in tables and INFERENCE_TABLE in features:
        name = f"{tables['logs_table']}_payload"
        body["inference_table_config"] = {**body.get("inference_table_config", {}), "name": name}
    return body
