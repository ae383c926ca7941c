"""The custom endpoint `own`, which may scale to zero: what it is, and how it shows."""

from typing import Any

Json = dict[str, Any]

B = "/api/2.0/serving-endpoints"
QUERY = "/serving-endpoints/own/invocations"
ASKED = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
CUSTOM = {
    "entity_name": "ml.llm-catalog.foundation-model",
    "entity_version": "3",
    "scale_to_zero_enabled": False,
}
SLEEPER = CUSTOM | {"scale_to_zero_enabled": True}
UP = 1.5
IDLE = 30.0
"""Seconds of the workspace's clock: half an hour, divided by 60."""
READY = ("READY", "NOT_UPDATING", "NOT_SUSPENDED", 1, None)
ASLEEP = ("DEPLOYMENT_READY", "Scaled to zero")
AWAKE = ("DEPLOYMENT_READY", "")


def outline(endpoint: Json) -> tuple[object, ...]:
    """ready, config_update, suspend, versions of `config` and of `pending_config`."""
    state = endpoint["state"]
    versions = (endpoint.get(key, {}).get("config_version") for key in ("config", "pending_config"))
    return (state["ready"], state["config_update"], state["suspend"], *versions)


def entity_of(endpoint: Json) -> tuple[str, str]:
    [entity] = endpoint["config"]["served_entities"]
    state = entity["state"]
    return state["deployment"], state["deployment_state_message"]
