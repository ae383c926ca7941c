"""Signed URLs: whoever has one may do what it says until it expires, without a token."""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from servemu_state import signing_keys
from servemu_state.database import Database

SECONDS = 900.0
"""What clients ask for is obeyed up to it (databricks-sdk asks for an hour, and asks again)."""

PREFIX = "/presigned"


class SignatureRefused(Exception):
    """`code` and the message are those of S3: databricks-sdk asks for a new URL where it reads
    "Request has expired" in the XML of a 403 (its files mixin)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Permit:
    """What a signed URL allows."""

    method: str
    workspace: str
    path: str
    """As the Files API has it: `/Models/…`."""
    upload: str = ""
    """Token of the upload in parts."""
    part: int = 0


class UrlSigner:
    """Signs permits with HMAC-SHA256, by a key that the database keeps."""

    def __init__(self, db: Database, now: Callable[[], float]) -> None:
        """`now`: seconds since the epoch, real time."""
        self._db = db
        self._now = now
        self._kept = b""

    def url(self, base: str, permit: Permit, seconds: float = SECONDS) -> str:
        """A URL under `base`, the address that the client used."""
        expires = self._now() + min(seconds, SECONDS)
        fields = [permit.method, permit.workspace, permit.path, permit.upload, permit.part, expires]
        body = json.dumps(fields, separators=(",", ":")).encode()
        return f"{base}{PREFIX}/{_text(self._mac(body))}/{_text(body)}"

    def read(self, method: str, signature: str, body: str) -> Permit:
        """The permit of a URL. Raises `SignatureRefused`."""
        try:
            raw, given = _bytes(body), _bytes(signature)
        except ValueError:
            raise _forged() from None
        if not hmac.compare_digest(self._mac(raw), given):
            raise _forged()
        allowed, workspace, path, upload, part, expires = json.loads(raw)
        if allowed != method:
            raise _forged()
        if self._now() >= expires:
            raise SignatureRefused("AccessDenied", "Request has expired")
        return Permit(allowed, workspace, path, upload, part)

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key(), body, hashlib.sha256)

    def _key(self) -> bytes:
        if not self._kept:
            with self._db.write() as connection:
                made = signing_keys.get_or_insert(connection, "files", secrets.token_hex(32))
            self._kept = bytes.fromhex(made)
        return self._kept


def _forged() -> SignatureRefused:
    return SignatureRefused(
        "SignatureDoesNotMatch", "The request signature we calculated does not match."
    )


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
