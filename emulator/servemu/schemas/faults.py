"""Fault rules on the wire of `/_emulator/faults` (design §10).

This version knows the phase `lifecycle` and its effect `no_capacity`; a new effect is one more
class in the union `Effect`, with what it does in `faults/effects.py`.
"""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer

Operation = Literal["serving-endpoints.create", "serving-endpoints.update_config"]
Phase = Literal["lifecycle"]
Duration = Annotated[timedelta, Field(gt=timedelta(0), le=timedelta(days=36500))]
"""ISO 8601 (`PT29M`) or a number of seconds."""


def iso(duration: timedelta | None) -> str | None:
    """In seconds, and never with an exponent: that could not be read again."""
    if duration is None:
        return None
    seconds = f"{duration.total_seconds():.6f}".rstrip("0").rstrip(".")
    return f"PT{seconds}S"


GLOB = r"^([a-zA-Z0-9_*?-]|\[!?[a-zA-Z0-9_-]+\])+$"
"""Anything else could not match the name of an endpoint: such a rule would never fire."""


class Strict(BaseModel):
    """A misspelt field of a rule is a rule that never fires, so it is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Match(Strict):
    """Which requests a rule is about. All that is given must agree."""

    operation: Operation | None = None
    endpoint: str = Field("*", pattern=GLOB, description="A glob on the endpoint's name.")
    header: dict[str, str] = {}


class When(Strict):
    """Which of the matching requests it hits: after the first `skip`, at most `times` of them."""

    skip: int = Field(0, ge=0)
    times: int | None = Field(None, ge=1)
    probability: float = Field(1.0, ge=0, le=1)
    seed: int = 0


class NoCapacity(Strict):
    """No GPU replica comes free: the deployment waits, then aborts (C1, C2)."""

    type: Literal["no_capacity"] = "no_capacity"
    after: Duration | None = Field(
        None, description="The real service's waiting time; `speedup` divides it."
    )

    @field_serializer("after")
    def _iso(self, after: timedelta | None) -> str | None:
        return iso(after)


Effect = NoCapacity


class Rule(Strict):
    """One fault: what it matches, when it hits, and what happens then."""

    id: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    preset: str | None = Field(None, description="The preset this rule came from.")
    match: Match = Match()
    when: When = When()
    phase: Phase = "lifecycle"
    effect: Effect
    expires_in: Duration | None = None
    must_fire: bool = False

    @field_serializer("expires_in")
    def _iso(self, expires_in: timedelta | None) -> str | None:
        return iso(expires_in)
