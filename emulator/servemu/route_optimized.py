"""Route-optimised endpoints: which may be, and where they answer (facts/data_plane §1.2)."""

from typing import Any

from servemu.auth import ROUTE_OPTIMIZED
from servemu.errors import InvalidParameter
from servemu.lifecycle.kinds import is_external, is_provisioned
from servemu.lifecycle.transitions import Config
from servemu.schemas.oauth import authorization_details
from servemu.schemas.rendering import is_ready
from servemu_state.records import Endpoint


def check_config(config: Config) -> None:
    """Only custom models can be route-optimised: no foundation models, no external ones (DOC).

    Refused, not ignored: who asked for it would wait for a URL that never comes (GUESS; also the
    text). Raises `InvalidParameter`.
    """
    for entity in config.entities:
        if is_provisioned(entity) or is_external(entity):
            raise InvalidParameter(
                f"Served entity {entity.entity_name or entity.name} cannot be route-optimized: "
                "route optimization is for custom models, not for foundation models or external "
                "models."
            )


def render_query_info(endpoint: Endpoint, host: str) -> dict[str, Any]:
    """The fields that a route-optimised endpoint shows once it is ready.

    The real URL is on a host of its own (`https://<id>.serving.cloud.databricks.com/<workspace
    id>/serving-endpoints/…`); this server has only its one.
    """
    if not endpoint.settings.get("route_optimized") or not is_ready(endpoint):
        return {}
    path = f"{ROUTE_OPTIMIZED}/{endpoint.id}/serving-endpoints/{endpoint.name}/invocations"
    url = host.rstrip("/") + path
    details = authorization_details(endpoint.id)
    return {
        "endpoint_url": url,
        "data_plane_info": {"query_info": {"endpoint_url": url, "authorization_details": details}},
    }
