"""A scenario's TOML file: steps, each at most one action, and what is expected of it.

Durations are the real service's (`29m`, `PT29M`, seconds): they are divided by the emulator's
`speedup`, so a file means the same at any speed.
"""

import re
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from servemu.errors import InvalidParameter
from servemu.faults.shorthand import spelt_out
from servemu.schemas.effects import Duration, Strict
from servemu.schemas.faults import parse_rule

PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([dhms])")
SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
COUNT = re.compile(r"(>=|<=|>|<)?\s*([0-9]{1,9})")
ALL = "*"


def _duration(given: object) -> object:
    """`1h30m` too; anything else is pydantic's."""
    if isinstance(given, str) and re.fullmatch(f"(?:{PART.pattern})+", given):
        return timedelta(
            seconds=sum(float(number) * SECONDS[unit] for number, unit in PART.findall(given))
        )
    return given


def _count(given: object) -> object:
    if isinstance(given, bool) or not COUNT.fullmatch(str(given)):
        raise PydanticCustomError("count", "Input should be as 3, '>=3', '<=3', '>3' or '<3'")
    return str(given).replace(" ", "")


Time = Annotated[Duration, BeforeValidator(_duration)]
Count = Annotated[str, BeforeValidator(_count)]
"""A number, or a bound: `3`, `>=3`."""
Name = Annotated[str, Field(min_length=1)]


def agrees(count: Count, got: int) -> bool:
    """Whether the number is as expected."""
    found = COUNT.fullmatch(count)
    assert found is not None, count
    bound = int(found[2])
    match found[1]:
        case ">=":
            return got >= bound
        case "<=":
            return got <= bound
        case ">":
            return got > bound
        case "<":
            return got < bound
    return got == bound


class Load(Strict):
    """Chat queries to one endpoint."""

    endpoint: Name
    requests: int = Field(1, ge=1, le=100_000)
    concurrency: int = Field(1, ge=1, le=256, description="1: in order, so the run repeats.")
    max_tokens: int = Field(4, ge=1, le=4096)
    prompt: str = "Hello."
    over: Time | None = Field(
        None, description="Spread over so much of the clock, which is moved between them."
    )
    held_for: Time | None = Field(
        None, description="The clock moves so far while all of them are held: a cold start."
    )

    @model_validator(mode="after")
    def _one_time(self) -> Self:
        if self.over is not None and self.held_for is not None:
            raise PydanticCustomError("load", "Give either over or held_for")
        return self


class Call(Strict):
    """Any request of the API that has no step of its own."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    path: str = Field(pattern="^/")
    body: dict[str, Any] | None = None


class EndpointState(Strict):
    """What a GET of the endpoint shows."""

    gone: Literal[True] | None = Field(None, description="It answers 404.")
    ready: Literal["READY", "NOT_READY"] | None = None
    config_update: (
        Literal["NOT_UPDATING", "IN_PROGRESS", "UPDATE_FAILED", "UPDATE_CANCELED"] | None
    ) = None
    config_version: int | None = Field(None, description="Of the config that serves; 0: none.")
    pending_version: int | None = Field(None, description="Of the pending config; 0: none.")
    entities: dict[str, str] = Field(
        {}, description="deployment of each served entity, of the pending config where it is there."
    )
    message: str | None = Field(None, description="Is in some entity's deployment_state_message.")


class Judgement(Strict):
    """The verdict on the requests so far."""

    grade: Literal["pass", "warn", "fail"] | None = None
    findings: tuple[str, ...] | None = Field(None, description="The codes, in any order.")


class Requests(Strict):
    """How many requests the journal holds."""

    operation: Name
    status: str | None = Field(None, pattern=r"^([1-5](xx|[0-9]{2})|null)$")
    count: Count


class Expect(Strict):
    """All that is given must be met."""

    status: int | None = Field(None, description="Of the step's own request. [200]")
    error_code: str | None = None
    message: str | None = Field(None, description="Is in the answer's message.")
    answers: dict[str, Count] = Field({}, description="Of the load, by status.")
    error_codes: dict[str, Count] = Field({}, description="Of the load, by error_code.")
    served: dict[str, Count] = Field({}, description="Of the load, by the entity that answered.")
    endpoints: dict[str, EndpointState] = {}
    ledger: dict[str, Count] = Field({}, description="How often each fault rule fired, by id.")
    requests: tuple[Requests, ...] = ()
    verdict: Judgement | None = None


ACTIONS = (
    "fault",
    "clear",
    "advance",
    "capacity",
    "create",
    "update",
    "delete",
    "load",
    "request",
)
ASKS = frozenset({"create", "update", "delete", "request"})
"""Actions with one answer."""


class Step(Strict):
    """At most one action, then what is expected."""

    name: str = ""
    fault: dict[str, Any] | None = Field(None, description="A rule: POST /_emulator/faults.")
    clear: str | None = Field(None, description="The id of a rule, or *: all.")
    advance: Time | None = None
    capacity: dict[str, Annotated[int, Field(ge=0)]] | Literal["unlimited"] | None = Field(
        None, description="GPU replicas of the workspace, by workload type or glob."
    )
    create: dict[str, Any] | None = Field(None, description="The body of a create.")
    update: dict[str, Any] | None = Field(None, description="name, and the body of the update.")
    delete: str | None = None
    load: Load | None = None
    request: Call | None = None
    expect: Expect = Expect()

    @property
    def action(self) -> str | None:
        return next((name for name in ACTIONS if getattr(self, name) is not None), None)

    @property
    def title(self) -> str:
        return self.name or self.action or "look"

    @field_validator("fault")
    @classmethod
    def _rule(cls, fault: dict[str, Any] | None) -> dict[str, Any] | None:
        if fault is not None:
            try:
                parse_rule(spelt_out(fault))
            except InvalidParameter as error:
                text = error.message.replace("{", "{{").replace("}", "}}")
                raise PydanticCustomError("fault", text) from None
        return fault

    @field_validator("create", "update")
    @classmethod
    def _named(cls, body: dict[str, Any] | None) -> dict[str, Any] | None:
        if body is not None and not (isinstance(body.get("name"), str) and body["name"]):
            raise PydanticCustomError("name", "The endpoint's name is missing")
        return body

    @model_validator(mode="after")
    def _fits(self) -> Self:
        given = [name for name in ACTIONS if getattr(self, name) is not None]
        if len(given) > 1:
            raise PydanticCustomError("actions", f"One action a step, got {' and '.join(given)}")
        expect = self.expect
        if self.action not in ASKS and (expect.status or expect.error_code or expect.message):
            raise PydanticCustomError(
                "expect", f"status, error_code and message are of {', '.join(sorted(ASKS))}"
            )
        if self.load is None and (expect.answers or expect.error_codes or expect.served):
            raise PydanticCustomError("expect", "answers, error_codes and served are of a load")
        if not given and expect == Expect():
            raise PydanticCustomError("empty", "A step does something or expects something")
        return self


class Scenario(Strict):
    """A whole file."""

    title: Name
    seed: int = Field(0, description="Of an emulator that is started for it.")
    settings: dict[str, Any] = Field(
        {}, description="Settings of an emulator that is started for it."
    )
    steps: tuple[Step, ...] = Field(min_length=1)
