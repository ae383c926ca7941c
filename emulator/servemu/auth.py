"""Who is asking: bearer token → principal and workspace, and the headers every answer carries."""

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from servemu.dice import Dice
from servemu.errors import ApiError, CredentialInvalid, CredentialMissing
from servemu.responses import error_response
from servemu.workspace import org_id

DEFAULT_WORKSPACE = "default"
DEFAULT_USER = "me@example.com"
ROUTE_OPTIMIZED = "/route-optimized"
"""Where route-optimised endpoints answer: `/{endpoint id}/serving-endpoints/…` below it."""
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True)
class Principal:
    """A user or a service principal in a workspace."""

    user: str = DEFAULT_USER
    """E-mail address, or application id of a service principal: `userName` in SCIM."""
    workspace: str = DEFAULT_WORKSPACE
    is_service_principal: bool = False
    endpoint_id: str | None = None
    """The one endpoint that the token is good for: a data-plane token (facts/data_plane §1.2)."""

    @property
    def is_admin(self) -> bool:
        """The user whom no token names is the admin of the workspace; all others are not."""
        return self.user == DEFAULT_USER and not self.is_service_principal


def principal_of(token: str) -> Principal:
    """`emu.<workspace>[.<user>]` chooses both; any other token is the default user.

    A user that is a UUID is a service principal, as clients tell them apart (databricks CLI, TF).
    """
    workspace, user = _chosen(token)
    if not user:
        return Principal(workspace=workspace)
    if UUID.fullmatch(user):
        return Principal(user, workspace, is_service_principal=True)
    return Principal(user if "@" in user else f"{user}@example.com", workspace)


def service_principal_of(client_id: str) -> Principal:
    """Whom OAuth client credentials stand for. The id chooses a workspace as tokens do."""
    workspace, user = _chosen(client_id)
    return Principal(user or client_id, workspace, is_service_principal=True)


def _chosen(text: str) -> tuple[str, str]:
    """The workspace and the user that the text names; "" without a user."""
    prefix, _, rest = text.partition(".")
    workspace, _, user = rest.partition(".")
    return (workspace, user) if prefix == "emu" and workspace else (DEFAULT_WORKSPACE, "")


def token_of(headers: Headers) -> str | None:
    """The bearer token, or the password of `Basic token:<PAT>` (facts/data_plane §4)."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip() or None
        case "basic":
            try:
                user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                return None
            return password or None if user == "token" else None
    return None


def is_public(path: str) -> bool:
    """Paths that answer without a token: the emulator's switches, in the default workspace, and
    signed URLs, which say themselves what they are good for."""
    return path.startswith(("/.well-known/", "/_emulator/", "/oidc/", "/presigned/")) or path == "/"


class Identity:
    """Puts `principal` and `request_id` into the scope; refuses callers without a credential."""

    def __init__(
        self, app: ASGIApp, identify: Callable[[str], Principal | None], dice: Dice
    ) -> None:
        """`identify`: whose a token is; None for one that nobody has."""
        self._app = app
        self._principal_of = identify
        self._dice = dice

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._identify(scope)
        request_id: str = scope["request_id"]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                workspace = scope["principal"].workspace
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    (b"x-databricks-org-id", org_id(workspace).encode()),
                ]
            await send(message)

        app = self._app if refusal is None else error_response(refusal, request_id)
        await app(scope, receive, send_with_headers)

    def _identify(self, scope: Scope) -> ApiError | None:
        """Set the scope's principal and request id, or say why the caller has none."""
        path: str = scope["path"]
        # At `/oidc/` clients identify themselves, and not by a token.
        token = None if path.startswith("/oidc/") else token_of(Headers(scope=scope))
        known = None if token is None else self._principal_of(token)
        principal = known if known is not None and _is_good_for(known, path) else None
        scope["principal"] = principal or Principal()
        kind = f"request/{scope['method']} {path}"
        scope["request_id"] = self._dice.uuid(scope["principal"].workspace, kind)
        if principal is not None or (token is None and is_public(path)):
            return None
        return CredentialMissing() if token is None else CredentialInvalid(scope["request_id"])


def _is_good_for(principal: Principal, path: str) -> bool:
    """A data-plane token opens its endpoint's own URL, only it does. What is answered to others:
    GUESS, the text of no refusal is known (facts/data_plane §1.2, §10).
    """
    if principal.endpoint_id is None:
        return not path.startswith(f"{ROUTE_OPTIMIZED}/")
    return path.startswith(f"{ROUTE_OPTIMIZED}/{principal.endpoint_id}/")
