"""An endpoint's AI Gateway as it is kept and echoed (facts/control_plane §2.6)."""

from dataclasses import replace

from servemu.errors import InvalidParameter
from servemu.schemas.gateway import AiGateway
from servemu_state.records import Endpoint, JsonObject

PLACE = ("catalog_name", "schema_name", "table_name_prefix")


def shown_gateway(asked: AiGateway | None, endpoint: str) -> JsonObject | None:
    """What was asked for, with the defaults; None when there is nothing in it."""
    if asked is None or not (body := asked.shown()):
        return None
    if "inference_table_config" in body:
        table = {"table_name_prefix": endpoint} | body["inference_table_config"]
        body["inference_table_config"] = table
    return body


def replace_gateway(endpoint: Endpoint, asked: AiGateway, now: float) -> Endpoint:
    """The gateway becomes what was asked for, nothing of the old one stays.

    Raises `InvalidParameter` when an inference table would move while it is on (rule: docstring of
    databricks-sdk `AiGatewayInferenceTableConfig`; text GUESS).
    """
    before = (endpoint.settings.get("ai_gateway") or {}).get("inference_table_config", {})
    gateway = shown_gateway(asked, endpoint.name)
    table = (gateway or {}).get("inference_table_config", {})
    for key in PLACE:
        if before.get("enabled") and table.get("enabled") and before.get(key) != table.get(key):
            raise InvalidParameter(
                f"inference_table_config.{key} cannot be changed from '{before.get(key)}' to "
                f"'{table.get(key)}' while the inference table is enabled. Disable it first."
            )
    return replace(endpoint, settings=with_setting(endpoint, "ai_gateway", gateway), updated_at=now)


def with_setting(endpoint: Endpoint, key: str, value: object) -> JsonObject:
    """The endpoint's settings with this one set; None takes it away."""
    settings = {**endpoint.settings, key: value}
    return {key: value for key, value in settings.items() if value is not None}
