"""OAuth access tokens: what they say, how they are signed, and whose they are.

A token is a JWT (RFC 7519) signed by HMAC-SHA256, so nothing is stored for it and it outlives a
restart. The standard library is enough: there is one algorithm and one header, which is compared as
a whole (no `alg` to be tricked by). PyJWT would load `cryptography` at every start where it is
installed, and never use it.
"""

import base64
import binascii
import hmac
import json
import secrets
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from servemu.auth import Principal, principal_of
from servemu.settings import Settings
from servemu.workspace import Workspaces
from servemu_state import signing_keys
from servemu_state.database import Database

LIFETIME = 3600
"""Seconds, on the workspace's clock (facts/data_plane §1.2)."""


class AccessTokens:
    """Issues and verifies tokens by the key that the database keeps."""

    def __init__(self, db: Database, workspaces: Workspaces) -> None:
        self._db = db
        self._workspaces = workspaces
        self._key: bytes | None = None

    def issue(self, principal: Principal) -> str:
        """A token of the principal: for the whole API, or for its one endpoint."""
        now = int(self._workspaces.now(principal.workspace))
        claims: dict[str, Any] = {
            "sub": principal.user,
            "workspace": principal.workspace,
            "service_principal": principal.is_service_principal,
            "iat": now,
            "exp": now + LIFETIME,
            "jti": uuid.uuid4().hex,
        }
        if principal.endpoint_id is not None:
            claims["endpoint_id"] = principal.endpoint_id
        return sign(claims, self._signing_key())

    def verify(self, token: str) -> Principal | None:
        """Whose token it is; None when it is forged, or expired by its workspace's clock."""
        claims = claims_of(token, self._signing_key())
        if claims is None or self._workspaces.now(claims["workspace"]) >= claims["exp"]:
            return None
        return Principal(
            user=claims["sub"],
            workspace=claims["workspace"],
            is_service_principal=claims["service_principal"],
            endpoint_id=claims.get("endpoint_id"),
        )

    def _signing_key(self) -> bytes:
        if self._key is None:
            with self._db.write() as connection:
                made = signing_keys.get_or_insert(connection, "oauth", secrets.token_hex(32))
            self._key = bytes.fromhex(made)
        return self._key


def identifier(settings: Settings, issued: AccessTokens) -> Callable[[str], Principal | None]:
    """Whose a bearer token is, by the settings; None: nobody's, to be refused."""
    tokens = settings.tokens
    known = (
        {token: principal_of(f"emu.{who}") for token, who in tokens.items()}
        if isinstance(tokens, Mapping)
        else {token: principal_of(token) for token in tokens}
    )

    def identify(token: str) -> Principal | None:
        if token in known:
            return known[token]
        if is_ours(token):
            return issued.verify(token)
        return principal_of(token) if settings.auth == "open" else None

    return identify


def is_ours(token: str) -> bool:
    """It claims to be issued here. Other issuers' tokens are strings like any other."""
    return token.startswith(_HEADER + ".")


def sign(claims: Mapping[str, Any], key: bytes) -> str:
    """`header.payload.signature`."""
    signed = f"{_HEADER}.{_encode(json.dumps(claims, separators=(',', ':')).encode())}"
    return f"{signed}.{_encode(hmac.digest(key, signed.encode(), 'sha256'))}"


def claims_of(token: str, key: bytes) -> dict[str, Any] | None:
    """What the token says; None unless it was signed with this key, by `sign`."""
    signed, _, signature = token.rpartition(".")
    header, _, payload = signed.partition(".")
    expected = _encode(hmac.digest(key, signed.encode(), "sha256"))
    if header != _HEADER or not hmac.compare_digest(signature.encode(), expected.encode()):
        return None
    try:
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=="))
    except (binascii.Error, ValueError):
        return None
    return claims


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


_HEADER = _encode(b'{"alg":"HS256","typ":"at+jwt","kid":"servemu"}')
