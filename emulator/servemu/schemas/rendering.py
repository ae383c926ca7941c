"""What an endpoint looks like on the wire (facts/control_plane §2.1–§2.4, §2.7)."""

from collections.abc import Callable
from typing import Any

from servemu.lifecycle.kinds import is_external, latest
from servemu.lifecycle.transitions import is_stopped
from servemu_state.records import (
    ConfigUpdate,
    Deployment,
    Endpoint,
    EntityState,
    Route,
    ServedEntity,
)

Json = dict[str, Any]

EXTERNAL = ("type", "external_model")

INSIDE = frozenset({"rate_limits", "auto_capture_config", "usage_policy_id"})
"""Settings that are no field of the endpoint itself: shown elsewhere, or nowhere."""

NOT_ECHOED = frozenset({"burst_scaling_enabled"})
"""Write-only fields (facts/control_plane §2.4)."""


def render_endpoint(endpoint: Endpoint, permission_level: str = "CAN_MANAGE") -> Json:
    """`ServingEndpointDetailed`. `config` appears once live, `pending_config` until it is.

    `permission_level` is the caller's; who may change an endpoint can manage it.
    """
    configs: Json = {}
    if endpoint.active is not None:
        configs["config"] = render_config(endpoint, endpoint.active)
    if endpoint.pending is not None:
        started = milliseconds(endpoint.pending.started_at)
        pending = render_config(endpoint, endpoint.pending)
        configs["pending_config"] = pending | {"start_time": started}
    return _render(endpoint, permission_level, configs)


def render_summary(endpoint: Endpoint, permission_level: str = "CAN_MANAGE") -> Json:
    """A list item: the config is only a summary of its entities (facts/control_plane §2.2)."""
    active = endpoint.active
    configs = {} if active is None else {"config": _named_twice(active, _identity)}
    body = _render(endpoint, permission_level, configs)
    if "usage_policy_id" in endpoint.settings:
        body["usage_policy_id"] = endpoint.settings["usage_policy_id"]
    return body


def _render(endpoint: Endpoint, permission_level: str, configs: Json) -> Json:
    """What both have in common, around the configs of either."""
    body: Json = {
        "name": endpoint.name,
        "creator": endpoint.creator,
        "creation_timestamp": milliseconds(endpoint.created_at),
        "last_updated_timestamp": milliseconds(endpoint.updated_at),
        "state": render_state(endpoint),
        **configs,
        "tags": render_tags(endpoint),
        "id": endpoint.id,
        "permission_level": permission_level,
        "route_optimized": False,
        "description": "",
        "creator_display_name": endpoint.creator,
        "creator_kind": "User",
        "resource_credential_strategy": "EMBEDDED_CREDENTIALS",
    }
    deployment = latest(endpoint)
    if deployment is not None and is_external(deployment.entities[0]):
        # The other kinds' values are not known (facts/control_plane §2.1), so they show none.
        body["endpoint_type"] = "EXTERNAL_MODEL"
    return body | {key: value for key, value in endpoint.settings.items() if key not in INSIDE}


def render_state(endpoint: Endpoint) -> Json:
    ready = is_ready(endpoint)
    return {
        "ready": "READY" if ready else "NOT_READY",
        "config_update": endpoint.config_update.value,
        "suspend": "STOPPED" if is_suspended(endpoint) else "NOT_SUSPENDED",
    }


def is_ready(endpoint: Endpoint) -> bool:
    """Some config answers requests. Independent of `config_update` (facts/control_plane §3)."""
    active = endpoint.active
    return active is not None and all(e.state is EntityState.READY for e in active.entities)


def is_suspended(endpoint: Endpoint) -> bool:
    """Stopped, and not about to start (GUESS: NOT_SUSPENDED from the start on)."""
    return is_stopped(endpoint) and endpoint.config_update is not ConfigUpdate.IN_PROGRESS


def render_config(endpoint: Endpoint, deployment: Deployment) -> Json:
    """Entities under both their names, as every real answer has them (facts/control_plane §2.3)."""
    auto_capture = endpoint.settings.get("auto_capture_config")
    return {
        **_named_twice(deployment, render_entity),
        "traffic_config": {"routes": [render_route(route) for route in deployment.routes]},
        "config_version": deployment.config_version,
        **({} if auto_capture is None else {"auto_capture_config": auto_capture}),
    }


def render_entity(entity: ServedEntity, word: str) -> Json:
    """`word` is `entity` or `model`: the prefix of the name and version fields."""
    throughput = {
        "min_provisioned_throughput": entity.min_provisioned_throughput,
        "max_provisioned_throughput": entity.max_provisioned_throughput,
    }
    return (
        _identity(entity, word)
        | {key: value for key, value in throughput.items() if value is not None}
        | {key: value for key, value in entity.settings.items() if key not in NOT_ECHOED}
        | {
            "creator": entity.creator,
            "creation_timestamp": milliseconds(entity.created_at),
            "state": {
                "deployment": entity.state.value,
                "deployment_state_message": entity.state_message,
            },
        }
    )


def render_route(route: Route) -> Json:
    """Both names, same value (facts/control_plane §2.3)."""
    return {
        "served_model_name": route.served_entity,
        "traffic_percentage": route.traffic_percentage,
        "served_entity_name": route.served_entity,
    }


def render_tags(endpoint: Endpoint) -> list[Json]:
    return [{"key": key, "value": value} for key, value in endpoint.tags]


def milliseconds(at: float) -> int:
    """Wire time: ms since the epoch; real ones end in 000 (facts/control_plane §2.1)."""
    return int(at) * 1000


def _named_twice(deployment: Deployment, render: Callable[[ServedEntity, str], Json]) -> Json:
    """External models have no mirror: their older form has no place for them (GUESS)."""
    body: Json = {"served_entities": [render(e, "entity") for e in deployment.entities]}
    if not is_external(deployment.entities[0]):
        body["served_models"] = [render(e, "model") for e in deployment.entities]
    return body


def _identity(entity: ServedEntity, word: str) -> Json:
    body: Json = {"name": entity.name}
    if entity.entity_name is not None:
        body[f"{word}_name"] = entity.entity_name
        body[f"{word}_version"] = entity.entity_version
    return body | {key: entity.settings[key] for key in EXTERNAL if key in entity.settings}
