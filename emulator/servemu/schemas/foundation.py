"""Pay-per-token endpoints on the wire: no id, no creator, no tags (facts/control_plane §2.7)."""

from typing import Any

from servemu.catalog import FoundationEndpoint


def render_foundation_endpoint(endpoint: FoundationEndpoint) -> dict[str, Any]:
    """The key set of real ones (mql PR 9770, 2026-08; a listing of May 2026, lib:56490560434).

    `permission_level` is a GUESS: everybody may query them, nobody change them (facts §2.7).
    """
    return {
        "name": endpoint.name,
        "creation_timestamp": endpoint.created,
        "last_updated_timestamp": endpoint.created,
        "state": {"ready": "READY", "config_update": "NOT_UPDATING"},
        "config": {
            "served_entities": [
                {
                    "name": endpoint.name,
                    "type": "FOUNDATION_MODEL",
                    "entity_name": endpoint.entity_name,
                    "foundation_model": endpoint.foundation_model(),
                }
            ]
        },
        "permission_level": "CAN_QUERY",
        "task": endpoint.task,
        "endpoint_type": "FOUNDATION_MODEL_API",
        "capabilities": dict(endpoint.capabilities),
    }


def render_foundation_model(endpoint: FoundationEndpoint) -> dict[str, Any]:
    """An item of `serving-endpoints:foundation-models` (facts/control_plane §1.2)."""
    return {
        "name": endpoint.name,
        "task": endpoint.task,
        "capabilities": dict(endpoint.capabilities),
        "config": {"served_entities": [{"foundation_model": endpoint.foundation_model()}]},
    }
