"""What an endpoint looks like on the wire (facts/control_plane §2.1–§2.4, §2.7)."""

from typing import Any

from servemu_state.records import (
    Deployment,
    Endpoint,
    EntityState,
    Route,
    ServedEntity,
)

Json = dict[str, Any]

NOT_ECHOED = frozenset({"burst_scaling_enabled"})
"""Write-only fields (facts/control_plane §2.4)."""


def render_endpoint(endpoint: Endpoint, permission_level: str = "CAN_MANAGE") -> Json:
    """`ServingEndpointDetailed`. `config` appears once live, `pending_config` until it is.

    `permission_level` is the caller's; who may change an endpoint can manage it.
    """
    body: Json = {
        "name": endpoint.name,
        "creator": endpoint.creator,
        "creation_timestamp": milliseconds(endpoint.created_at),
        "last_updated_timestamp": milliseconds(endpoint.updated_at),
        "state": render_state(endpoint),
    }
    if endpoint.active is not None:
        body["config"] = render_config(endpoint.active)
    if endpoint.pending is not None:
        started = milliseconds(endpoint.pending.started_at)
        body["pending_config"] = render_config(endpoint.pending) | {"start_time": started}
    body |= {
        "tags": render_tags(endpoint),
        "id": endpoint.id,
        "permission_level": permission_level,
        "route_optimized": False,
        "description": "",
        "creator_display_name": endpoint.creator,
        "creator_kind": "User",
        "resource_credential_strategy": "EMBEDDED_CREDENTIALS",
    }
    return body | dict(endpoint.settings)


def render_summary(endpoint: Endpoint, permission_level: str = "CAN_MANAGE") -> Json:
    """A list item: the config is only a summary of its entities (facts/control_plane §2.2)."""
    body = render_endpoint(endpoint, permission_level)
    body.pop("pending_config", None)
    if endpoint.active is not None:
        entities = endpoint.active.entities
        body["config"] = {
            "served_entities": [_identity(entity, "entity") for entity in entities],
            "served_models": [_identity(entity, "model") for entity in entities],
        }
    return body


def render_state(endpoint: Endpoint) -> Json:
    ready = is_ready(endpoint)
    return {
        "ready": "READY" if ready else "NOT_READY",
        "config_update": endpoint.config_update.value,
        "suspend": "NOT_SUSPENDED",
    }


def is_ready(endpoint: Endpoint) -> bool:
    """Some config answers requests. Independent of `config_update` (facts/control_plane §3)."""
    active = endpoint.active
    return active is not None and all(e.state is EntityState.READY for e in active.entities)


def render_config(deployment: Deployment) -> Json:
    """Entities under both their names, as every real answer has them (facts/control_plane §2.3)."""
    return {
        "served_entities": [render_entity(e, "entity") for e in deployment.entities],
        "served_models": [render_entity(e, "model") for e in deployment.entities],
        "traffic_config": {"routes": [render_route(route) for route in deployment.routes]},
        "config_version": deployment.config_version,
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


def _identity(entity: ServedEntity, word: str) -> Json:
    body: Json = {"name": entity.name}
    if entity.entity_name is not None:
        body[f"{word}_name"] = entity.entity_name
        body[f"{word}_version"] = entity.entity_version
    return body
