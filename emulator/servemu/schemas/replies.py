"""Scripted replies: on the wire of `/_emulator/replies`, and `[[replies]]` of servemu.toml."""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
)

from servemu.schemas.effects import Strict
from servemu.schemas.faults import GLOB

ERROR_CODES: Mapping[int, str] = {
    400: "BAD_REQUEST",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    408: "REQUEST_TIMEOUT",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    502: "BAD_GATEWAY",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "TEMPORARILY_UNAVAILABLE",
}
"""What the service says with a status when nothing else is asked (facts/data_plane §5)."""


def _as_text(given: Any) -> Any:
    return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)


class ReplyMatch(Strict):
    """Which requests a reply is for. All that is given must agree."""

    endpoint: str = Field("*", pattern=GLOB, description="A glob on the endpoint's name.")
    model: str = Field(
        "*", min_length=1, description="A glob on the served model: its full or its served name."
    )
    message: str | None = Field(None, description="Part of the last user message, or of a prompt.")
    pattern: str | None = Field(
        None, description="A regular expression that is found in that message."
    )

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from None
        return pattern


class ScriptedCall(Strict):
    """A tool call of the answer."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")
    arguments: Annotated[str, BeforeValidator(_as_text)] = Field(
        "{}", description="An object, or its JSON text; sent as it is, also when it is broken."
    )
    id: str | None = Field(
        None, min_length=1, description="None: one that follows from the prompt."
    )


class ScriptedFailure(Strict):
    """The error that the request gets instead of an answer."""

    status: int = Field(ge=400, le=599)
    error_code: str | None = Field(
        None, min_length=1, validate_default=True, description="None: what goes with the status."
    )
    message: str = ""
    retry_after: int | None = Field(None, ge=0, description="Whole seconds.")

    @field_validator("error_code")
    @classmethod
    def _known(cls, error_code: str | None, info: ValidationInfo) -> str | None:
        status = info.data.get("status")
        if error_code is None and status is not None and status not in ERROR_CODES:
            raise ValueError(f"must be given with status {status}")
        return error_code or ERROR_CODES.get(status or 0)


class Reply(Strict):
    """What is answered to the requests that match; the first reply that does wins."""

    id: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    match: ReplyMatch = Field(default_factory=ReplyMatch)
    times: int | None = Field(None, ge=1, description="None: every time.")
    error: ScriptedFailure | None = None
    tool_calls: tuple[ScriptedCall, ...] = Field((), max_length=32)
    text: str | None = Field(None, validate_default=True)
    finish_reason: Literal["stop", "length", "tool_calls"] | None = None

    @field_validator("text")
    @classmethod
    def _one_answer(cls, text: str | None, info: ValidationInfo) -> str | None:
        """Reported at `text`, so that the refusal names a field."""
        if not {"error", "tool_calls"} <= info.data.keys():
            return text  # those are wrong themselves
        answers = text is not None or bool(info.data["tool_calls"])
        if answers and info.data["error"] is not None:
            raise ValueError("text and tool_calls cannot be given together with error")
        if not answers and info.data["error"] is None:
            raise ValueError("one of text, tool_calls and error must be given")
        return text
