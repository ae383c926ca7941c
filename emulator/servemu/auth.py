"""Who is asking: bearer token → principal and workspace, and the headers every answer carries."""

import base64
import binascii
import uuid
from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from servemu.errors import ApiError, CredentialInvalid, CredentialMissing
from servemu.responses import error_response
from servemu.workspace import org_id

DEFAULT_WORKSPACE = "default"
DEFAULT_USER = "me@example.com"


@dataclass(frozen=True, slots=True)
class Principal:
    """A user in a workspace."""

    user: str = DEFAULT_USER
    workspace: str = DEFAULT_WORKSPACE


def principal_of(token: str) -> Principal:
    """`emu.<workspace>[.<user>]` chooses both; any other token is the default user."""
    prefix, _, rest = token.partition(".")
    workspace, _, user = rest.partition(".")
    if prefix != "emu" or not workspace:
        return Principal()
    if not user:
        return Principal(workspace=workspace)
    return Principal(user if "@" in user else f"{user}@example.com", workspace)


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
    """Paths that answer without a token: for the emulator's switches, in the default workspace."""
    return path.startswith(("/.well-known/", "/_emulator/", "/oidc/")) or path == "/"


class Identity:
    """Puts `principal` and `request_id` into the scope; refuses callers without a credential."""

    def __init__(self, app: ASGIApp, accepted: Collection[str] | None) -> None:
        """`accepted`: the only tokens that are let in; None lets every token in."""
        self._app = app
        self._accepted = accepted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["request_id"] = request_id = str(uuid.uuid4())
        scope["principal"] = Principal()
        refusal = self._identify(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["x-databricks-org-id"] = org_id(scope["principal"].workspace)
            await send(message)

        app = self._app if refusal is None else error_response(refusal, request_id)
        await app(scope, receive, send_with_headers)

    def _identify(self, scope: Scope) -> ApiError | None:
        """Set the scope's principal, or say why the caller has none."""
        token = token_of(Headers(scope=scope))
        if token is None:
            return None if is_public(scope["path"]) else CredentialMissing()
        if self._accepted is not None and token not in self._accepted:
            return CredentialInvalid(scope["request_id"])
        scope["principal"] = principal_of(token)
        return None
