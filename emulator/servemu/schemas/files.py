"""Bodies and answers of the Files API (facts/uc_registry §1.2, §1.3)."""

from datetime import datetime
from typing import Any

from pydantic import Field, field_validator

from servemu.registry.signing import SECONDS
from servemu.schemas.wire import Int64, Wire

MOST_URLS = 1000


class SignedFile(Wire):
    """Of `create-download-url` and `create-upload-url`: in the query or in the body."""

    path: str
    expire_time: datetime | None = None

    @field_validator("expire_time")
    @classmethod
    def _has_zone(cls, given: datetime | None) -> datetime | None:
        if given is not None and given.tzinfo is None:
            raise ValueError("must have a time zone")
        return given

    def seconds(self, now: float) -> float:
        """How long the URL is to be good for."""
        return SECONDS if self.expire_time is None else self.expire_time.timestamp() - now


class SignedUpload(SignedFile):
    session_token: str


class SignedParts(SignedUpload):
    start_part_number: Int64 = Field(1, ge=1, le=10_000)
    count: Int64 = Field(1, ge=1, le=MOST_URLS)


class Part(Wire):
    part_number: Int64 = Field(ge=1)
    etag: str


class CompleteUpload(Wire):
    parts: tuple[Part, ...]


class Credentials(Wire):
    """Of `generate-temporary-credentials`."""

    name: str
    version: Int64 = Field(ge=1)
    operation: str = ""


class ListFolder(Wire):
    page_size: Int64 = Field(1000, ge=0, le=10_000)
    page_token: str = ""


def render_entry(path: str, *, is_directory: bool, size: int, modified: float) -> dict[str, Any]:
    """One row of a listing; `modified` in seconds."""
    entry = {
        "path": path,
        "name": path.rpartition("/")[2],
        "is_directory": is_directory,
        "last_modified": int(modified * 1000),
    }
    return entry if is_directory else {**entry, "file_size": size}
