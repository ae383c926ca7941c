"""`/oidc`: metadata and the token endpoint (facts/control_plane §5, facts/data_plane §1.2)."""

import base64
import binascii
import hmac
import json
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import parse_qsl, unquote_plus

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from servemu.auth import Principal, service_principal_of
from servemu.oauth import LIFETIME, is_ours
from servemu.responses import json_response
from servemu.schemas.oauth import AUTHORIZATION_DETAILS
from servemu.world import World, world_of
from servemu_state import endpoints

CLIENT_CREDENTIALS = "client_credentials"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SCOPE = "all-apis"


class Refused(Exception):
    """A failure in OAuth's own shape (RFC 6749 §5.2)."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(description)
        self.code = code
        self.description = description


async def metadata(request: Request) -> Response:
    """Where tokens are had. There is no page to log in at: `authorize` is not emulated."""
    issuer = f"{str(request.base_url).rstrip('/')}/oidc"
    return json_response(
        {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/v1/authorize",
            "token_endpoint": f"{issuer}/v1/token",
            "grant_types_supported": [CLIENT_CREDENTIALS, JWT_BEARER],
            "response_types_supported": ["code"],
            "scopes_supported": [SCOPE],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        }
    )


async def token(request: Request) -> Response:
    """A token of an hour on the workspace's clock."""
    text = (await request.body()).decode(errors="replace")
    form = dict(parse_qsl(text, keep_blank_values=True))
    try:
        body = _granted(request, form)
    except Refused as refused:
        is_client = refused.code == "invalid_client"
        return json_response(
            {"error": refused.code, "error_description": refused.description},
            status=401 if is_client else 400,
            headers={"WWW-Authenticate": 'Basic realm="DatabricksRealm"'} if is_client else None,
        )
    return json_response(body, headers={"Cache-Control": "no-store"})


def _granted(request: Request, form: Mapping[str, str]) -> dict[str, object]:
    world, grant = world_of(request), form.get("grant_type")
    if not grant:
        raise Refused("invalid_request", "grant_type is missing")
    if grant == CLIENT_CREDENTIALS:
        principal = _client(world, request, form)
    elif grant == JWT_BEARER:
        principal = _bearer(world, form)
    else:
        raise Refused("unsupported_grant_type", f"grant_type '{grant}' is not supported")
    request.scope["principal"] = principal
    granted: dict[str, object] = {
        "token_type": "Bearer",
        "expires_in": LIFETIME,
        "scope": form.get("scope") or SCOPE,
    }
    details = form.get("authorization_details")
    if details:
        principal = _narrowed(world, principal, details)
        granted["authorization_details"] = json.loads(details)
    return {"access_token": world.tokens.issue(principal), **granted}


def _client(world: World, request: Request, form: Mapping[str, str]) -> Principal:
    """The service principal of the credentials. With open auth any pair is right."""
    client_id, secret = _basic(request) or (form.get("client_id"), form.get("client_secret"))
    if not client_id or not secret:
        raise Refused("invalid_client", "Client authentication failed")
    if world.settings.auth == "strict":
        expected = world.settings.clients.get(client_id, "")
        if not expected or not hmac.compare_digest(expected.encode(), secret.encode()):
            raise Refused("invalid_client", "Client authentication failed")
    return service_principal_of(client_id)


def _basic(request: Request) -> tuple[str, str] | None:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise Refused("invalid_client", "Client authentication failed") from None
    return unquote_plus(client_id), unquote_plus(secret)


def _bearer(world: World, form: Mapping[str, str]) -> Principal:
    """Whose token is exchanged for one of an endpoint. Tokens that are not OAuth's cannot be."""
    assertion = form.get("assertion")
    if not assertion:
        raise Refused("invalid_request", "assertion is missing")
    if not form.get("authorization_details"):
        raise Refused("invalid_request", "authorization_details is missing")
    principal = world.tokens.verify(assertion) if is_ours(assertion) else None
    if principal is None or principal.endpoint_id is not None:
        raise Refused("invalid_grant", "The assertion is not a valid access token")
    return principal


def _narrowed(world: World, principal: Principal, details: str) -> Principal:
    """The principal, allowed one endpoint only."""
    try:
        [detail] = AUTHORIZATION_DETAILS.validate_json(details)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise Refused("invalid_authorization_details", first["msg"]) from None
    with world.db.read() as connection:
        found = endpoints.get_by_id(connection, principal.workspace, detail.endpoint_id)
    if found is None:
        raise Refused("invalid_authorization_details", f"{detail.object_path} does not exist")
    return replace(principal, endpoint_id=detail.endpoint_id)
