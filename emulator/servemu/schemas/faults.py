"""Fault rules on the wire of `/_emulator/faults` (design §10); their effects: `schemas.effects`.

`parse_rule` is the one door: admin API, CLI, `servemu.toml`, endpoint tag, header and pytest all
bring the same object.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from servemu.errors import InvalidParameter
from servemu.faults.operations import OPERATIONS, matching, unknown
from servemu.schemas.body import refusal
from servemu.schemas.effects import EFFECTS, Duration, Effect, Offset, Phase, Strict

GLOB = r"^([a-zA-Z0-9_*?-]|\[!?[a-zA-Z0-9_-]+\])+$"
"""Anything else could not match the name of an endpoint: such a rule would never fire."""
Glob = Annotated[str, Field(pattern=GLOB)]

STATES = (
    "READY",
    "NOT_READY",
    "NOT_UPDATING",
    "IN_PROGRESS",
    "UPDATE_FAILED",
    "UPDATE_CANCELED",
)
State = Literal[
    "READY", "NOT_READY", "NOT_UPDATING", "IN_PROGRESS", "UPDATE_FAILED", "UPDATE_CANCELED"
]


DEPLOYS = re.compile(r"serving-endpoints\.(create.*|start|update_(provisioned.*_)?config)")
"""Operations that start a deployment."""


class Match(Strict):
    """Which requests a rule is about. All that is given must agree."""

    operation: str | None = Field(
        None,
        description="Globs with | between: serving-endpoints.create, serving-endpoints.*, "
        "invocations.",
    )
    endpoint: Glob = Field("*", description="A glob on the endpoint's name.")
    header: dict[str, str] = {}
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] | None = None
    path: str | None = Field(None, pattern=r"^[/*?]", description="A glob on the path.")
    entity: Glob | None = Field(
        None, description="A glob on the served entity that the traffic split chose."
    )
    stream: bool | None = Field(None, description="Whether the query asks for a stream.")

    @field_validator("operation")
    @classmethod
    def _known(cls, operation: str | None) -> str | None:
        if operation is not None and (glob := unknown(operation)) is not None:
            known = ", ".join(OPERATIONS)
            text = f"No operation is called '{glob}'. There are: {known}"
            raise PydanticCustomError("operation", text.replace("{", "{{").replace("}", "}}"))
        return operation


class When(Strict):
    """Which of the matching requests it hits: after the first `skip`, at most `times` of them.

    `from` and `until`: seconds of the workspace's clock since the rule was added.
    """

    skip: int = Field(0, ge=0)
    times: int | None = Field(None, ge=1)
    probability: float = Field(1.0, ge=0, le=1)
    seed: int = 0
    from_: Offset | None = Field(None, alias="from")
    until: Duration | None = None
    state: State | None = Field(None, description="What the endpoint's state shows by then.")


class Rule(Strict):
    """One fault: what it matches, when it hits, and what happens then."""

    id: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,126}$")
    preset: str | None = Field(None, description="The preset this rule came from.")
    match: Match = Field(default_factory=Match)
    when: When = Field(default_factory=When)
    phase: Phase = "request"
    effect: Annotated[Effect, Field(discriminator="type")]
    expires_in: Duration | None = None
    must_fire: bool = False


def parse_rule(given: Mapping[str, Any]) -> Rule:
    """A rule whose preset is expanded already (`servemu.faults.presets.expand`).

    Raises `InvalidParameter`, which names the field and what it may be.
    """
    effect = given.get("effect")
    kind = effect.get("type") if isinstance(effect, Mapping) else None
    if effect is None:
        raise InvalidParameter("Missing required field: effect")
    if isinstance(effect, Mapping) and "type" not in effect:
        raise InvalidParameter("Missing required field: effect.type")
    if isinstance(kind, str) and kind in EFFECTS and "phase" not in given:
        given = {**given, "phase": EFFECTS[kind].phases[0]}
    try:
        rule = Rule.model_validate(given)
    except ValidationError as error:
        raise refusal(error, _location) from None
    _check(rule)
    return rule


def shown(rule: Rule) -> dict[str, Any]:
    """As it is stored and answered."""
    return rule.model_dump(mode="json", by_alias=True, exclude_none=True)


def _location(location: Sequence[str | int]) -> Sequence[str | int]:
    """Where a person would look: pydantic puts the effect's type between."""
    if tuple(location) == ("effect",):
        return "effect", "type"
    return ("effect", *location[2:]) if location[0] == "effect" else location


def _check(rule: Rule) -> None:
    """What fits by itself but not together."""
    kind = rule.effect.type
    if rule.phase not in rule.effect.phases:
        allowed = " or ".join(f"'{phase}'" for phase in rule.effect.phases)
        raise InvalidParameter(
            f"Invalid value for field 'phase': the effect '{kind}' needs {allowed} "
            f'(given: "{rule.phase}")'
        )
    when = rule.when
    if when.from_ is not None and when.until is not None and when.from_ >= when.until:
        raise InvalidParameter(
            "Invalid value for field 'when.until': it must be later than 'when.from'"
        )
    operation = rule.match.operation
    if operation is None:
        return
    needed = _operations_of(rule)
    if needed is not None and not matching(operation) & needed:
        raise InvalidParameter(
            f"Invalid value for field 'match.operation': the effect '{kind}' in phase "
            f"'{rule.phase}' needs {', '.join(sorted(needed))} (given: \"{operation}\")"
        )


def _operations_of(rule: Rule) -> frozenset[str] | None:
    """What can bring the effect about; None: everything."""
    queries = rule.phase == "stream" or rule.match.stream is not None
    if queries or rule.match.entity is not None:
        return frozenset({"invocations"})
    if rule.phase in ("lifecycle", "capacity") and not rule.effect.of_serving:
        return frozenset(filter(DEPLOYS.fullmatch, OPERATIONS))
    return None
