"""What clients ask before they ask anything: where am I, who am I (facts/control_plane §5)."""

import uuid

from starlette.requests import Request
from starlette.responses import Response

from servemu.access import ADMINS, EVERYBODY
from servemu.responses import json_response
from servemu.workspace import org_id
from servemu.world import principal_of

ACCOUNT_ID = str(uuid.uuid5(uuid.NAMESPACE_DNS, "servemu"))
"""All workspaces belong to one account."""


async def databricks_config(request: Request) -> Response:
    """Read by each new SDK `Config`, without a token."""
    host = str(request.base_url).rstrip("/")
    return json_response(
        {
            "oidc_endpoint": f"{host}/oidc",
            "account_id": ACCOUNT_ID,
            "workspace_id": org_id(principal_of(request).workspace),
            "cloud": "aws",
            "host_type": "WORKSPACE_HOST",
        }
    )


async def me(request: Request) -> Response:
    """SCIM: the caller. Clients know a service principal by its UUID as `userName`.

    `entitlements` are left out on demand, as TF asks (facts/control_plane §1.3); which they are is
    a GUESS, and so are the group ids.
    """
    principal = principal_of(request)
    user = principal.user
    body: dict[str, object] = {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "id": org_id(user),
        "userName": user,
        "displayName": user,
        "active": True,
    }
    if not principal.is_service_principal:
        body["emails"] = [{"value": user, "type": "work", "primary": True}]
    groups = (ADMINS, EVERYBODY) if principal.is_admin else (EVERYBODY,)
    body["groups"] = [
        {"display": group, "type": "direct", "value": org_id(group)} for group in groups
    ]
    body["entitlements"] = [{"value": "workspace-access"}]
    for name in request.query_params.get("excludedAttributes", "").split(","):
        if name.strip() not in ("schemas", "id", "userName"):  # SCIM: always returned (RFC 7644)
            body.pop(name.strip(), None)
    return json_response(body)


async def telemetry(request: Request) -> Response:
    """The CLI reports its use here, and does not wait; nothing is kept."""
    return json_response({})
