"""What clients ask before they ask anything: where am I, who am I (facts/control_plane §5)."""

from starlette.requests import Request
from starlette.responses import Response

from servemu.responses import json_response
from servemu.workspace import org_id
from servemu.world import principal_of


async def databricks_config(request: Request) -> Response:
    """Read by each new SDK `Config`, without a token."""
    host = str(request.base_url).rstrip("/")
    return json_response(
        {
            "oidc_endpoint": f"{host}/oidc",
            "workspace_id": org_id(principal_of(request).workspace),
            "host_type": "WORKSPACE_HOST",
        }
    )


async def me(request: Request) -> Response:
    """SCIM: the caller."""
    user = principal_of(request).user
    return json_response(
        {
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
            "id": org_id(user),
            "userName": user,
            "displayName": user,
            "active": True,
            "emails": [{"value": user, "type": "work", "primary": True}],
            "groups": [{"display": "admins"}],
        }
    )


async def telemetry(request: Request) -> Response:
    """The CLI reports its use here, and does not wait; nothing is kept."""
    return json_response({})
