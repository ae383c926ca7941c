"""What a fault does: one model an effect, on the wire of `/_emulator/faults` (design §10).

A new effect is one more class here, in `Effect`, and what it does in `servemu.faults` or
`servemu.lifecycle.fates`. Durations of the life cycle are the real service's, which `speedup`
divides; `seconds` and everything on the data plane are real time.
"""

from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

Phase = Literal["request", "after_commit", "lifecycle", "capacity", "stream", "network"]
"""request: before the handler · after_commit: it is written, the answer is lost · lifecycle: of a
deployment · capacity: of the GPU pool · stream: at a token · network: of the connection.
"""


def iso(duration: timedelta | None) -> str | None:
    """In seconds, and never with an exponent: that could not be read again."""
    if duration is None:
        return None
    seconds = f"{duration.total_seconds():.6f}".rstrip("0").rstrip(".")
    return f"PT{seconds}S"


Duration = Annotated[
    timedelta, Field(gt=timedelta(0), le=timedelta(days=36500)), PlainSerializer(iso)
]
"""ISO 8601 (`PT29M`) or a number of seconds."""
Offset = Annotated[
    timedelta, Field(ge=timedelta(0), le=timedelta(days=36500)), PlainSerializer(iso)
]
Seconds = Annotated[float, Field(gt=0, le=86400)]
AfterTokens = Annotated[int, Field(ge=0, le=10_000_000)]
"""So many tokens of the answer are sent whole, then it happens."""
Text = Annotated[str, Field(max_length=100_000)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
HeaderValue = Annotated[str, Field(pattern=r"^[\x20-\x7e]*$", max_length=4000)]


class Strict(BaseModel):
    """A misspelt field of a rule is a rule that never fires, so it is refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_by_name=True, defer_build=True
    )


class AnyEffect(Strict):
    """What all effects have. The first of `phases` is the one of a rule that names none."""

    phases: ClassVar[tuple[Phase, ...]]
    main: ClassVar[str] = ""
    """The field that `effect=value` sets in the short form."""
    of_serving: ClassVar[bool] = False
    """Of `lifecycle`: happens to a config that serves, at any request about it; all others happen
    to a deployment and are drawn by the request that starts it."""


class OfDeployment(AnyEffect):
    phases: ClassVar[tuple[Phase, ...]] = ("lifecycle",)
    main: ClassVar[str] = "after"


class NoCapacity(OfDeployment):
    """No GPU replica comes free: the deployment waits, then aborts (C1, C2)."""

    type: Literal["no_capacity"] = "no_capacity"
    after: Duration | None = Field(None, description="How long it waits. [the model's own 29 min]")


class TimeOut(OfDeployment):
    """The model server never gets ready: the update times out, the entities are aborted (C3)."""

    type: Literal["time_out"] = "time_out"
    after: Duration | None = Field(None, description="Server start to time-out. [60 or 120 min]")


class BuildFailed(OfDeployment):
    """The container image cannot be built, however often it is tried (C6)."""

    type: Literal["build_failed"] = "build_failed"
    after: Duration = Field(timedelta(minutes=22), description="Until it is given up.")
    attempts: int = Field(3, ge=1, le=20)


class LoadFailed(OfDeployment):
    """The model server fails to load the model (C7, C8)."""

    type: Literal["load_failed"] = "load_failed"
    main: ClassVar[str] = "message"
    message: Text = "Model server failed to load the model."
    log: Text = Field("", description="What the service log says besides.")


class Partial(OfDeployment):
    """One entity fails, and the others of its config version are aborted for it (C5)."""

    type: Literal["partial"] = "partial"
    main: ClassVar[str] = "entity"
    entity: str | None = Field(None, description="Which one fails. [the last]")
    message: Text = "Model server failed to load the model."


class Slow(OfDeployment):
    """The deployment stands still for so long before it goes on and succeeds (C4)."""

    type: Literal["slow"] = "slow"
    after: Duration = timedelta(minutes=50)


class ReplicaLost(AnyEffect):
    """The endpoint's entities recover for a while, and it is not ready until they have (C14)."""

    phases: ClassVar[tuple[Phase, ...]] = ("lifecycle",)
    main: ClassVar[str] = "lasts"
    of_serving: ClassVar[bool] = True
    type: Literal["replica_lost"] = "replica_lost"
    lasts: Duration = Field(timedelta(minutes=5), description="GUESS: no duration is known.")


class ReloadFailed(AnyEffect):
    """The service deploys the config that serves once more, by itself, and fails (C15)."""

    phases: ClassVar[tuple[Phase, ...]] = ("lifecycle",)
    main: ClassVar[str] = "message"
    of_serving: ClassVar[bool] = True
    type: Literal["reload_failed"] = "reload_failed"
    message: Text = "Model server failed to load the model."


class Shrink(AnyEffect):
    """The workspace's pool has no more than so many replicas of a workload type."""

    phases: ClassVar[tuple[Phase, ...]] = ("capacity",)
    main: ClassVar[str] = "replicas"
    type: Literal["shrink"] = "shrink"
    workload_type: str = Field("*", pattern=r"^[A-Z_*?]+$", description="A glob: GPU_MEDIUM, *.")
    replicas: int = Field(0, ge=0)


class Status(AnyEffect):
    """An error is answered instead."""

    phases: ClassVar[tuple[Phase, ...]] = ("request", "after_commit")
    main: ClassVar[str] = "status"
    type: Literal["status"] = "status"
    status: int = Field(ge=200, le=599)
    error_code: str | None = Field(None, description="[by the status]")
    message: Text | None = Field(None, description="[by the status]")
    retry_after: Annotated[int, Field(ge=0)] | HeaderValue | None = Field(
        None, description="Seconds, or any text a client should cope with."
    )
    body: dict[str, Any] | Text | None = Field(
        None, description="The whole body: JSON, or plain text. [error_code and message]"
    )
    headers: dict[HeaderName, HeaderValue] = {}
    delay: float = Field(0, ge=0, le=86400, description="Seconds before it is sent.")


class Delay(AnyEffect):
    """The answer comes late. The delays of several rules add up."""

    phases: ClassVar[tuple[Phase, ...]] = ("request", "after_commit")
    main: ClassVar[str] = "seconds"
    type: Literal["delay"] = "delay"
    seconds: Seconds


class ConnectionReset(AnyEffect):
    """The connection is reset (a TCP RST)."""

    phases: ClassVar[tuple[Phase, ...]] = ("network", "after_commit")
    main: ClassVar[str] = "after_bytes"
    type: Literal["reset"] = "reset"
    after_bytes: int | None = Field(
        None, ge=0, description="Of the answer's body. [instead of an answer, nothing is done]"
    )


class Hang(AnyEffect):
    """Never an answer, until the client leaves."""

    phases: ClassVar[tuple[Phase, ...]] = ("network", "after_commit")
    type: Literal["hang"] = "hang"


class SlowBytes(AnyEffect):
    """The answer's body trickles."""

    phases: ClassVar[tuple[Phase, ...]] = ("network",)
    main: ClassVar[str] = "bytes_per_second"
    type: Literal["slow_bytes"] = "slow_bytes"
    bytes_per_second: int = Field(100, ge=1)


class OfStream(AnyEffect):
    phases: ClassVar[tuple[Phase, ...]] = ("stream",)
    main: ClassVar[str] = "after_tokens"


class Cut(OfStream):
    """The connection ends in the middle of the stream."""

    type: Literal["cut"] = "cut"
    after_tokens: AfterTokens = 0
    how: Literal["close", "reset"] = "close"


class Stall(OfStream):
    """The stream stands still, then goes on."""

    type: Literal["stall"] = "stall"
    after_tokens: AfterTokens = 0
    seconds: Seconds | None = Field(None, description="[until the request times out]")


class Corrupt(OfStream):
    """The event after these tokens is no JSON; the stream goes on behind it."""

    type: Literal["corrupt"] = "corrupt"
    after_tokens: AfterTokens = 0


class ErrorEvent(OfStream):
    """The stream ends with an error event, without `[DONE]`: no shape is documented, clients know
    these two (facts/data_plane §3.2, §6)."""

    type: Literal["error_event"] = "error_event"
    after_tokens: AfterTokens = 0
    shape: Literal["error", "error_code"] = "error"
    error_code: str = "INTERNAL_ERROR"
    message: Text = "Internal server error."


class DropUsage(OfStream):
    """No event after these tokens shows the usage."""

    type: Literal["drop_usage"] = "drop_usage"
    after_tokens: AfterTokens = 0


class DropDone(OfStream):
    """The stream ends, as if it were whole, without `[DONE]`."""

    type: Literal["drop_done"] = "drop_done"
    after_tokens: AfterTokens | None = Field(None, description="[the whole answer]")


StreamEffect = Cut | Stall | Corrupt | ErrorEvent | DropUsage | DropDone
Effect = (
    NoCapacity
    | TimeOut
    | BuildFailed
    | LoadFailed
    | Partial
    | Slow
    | ReplicaLost
    | ReloadFailed
    | Shrink
    | Status
    | Delay
    | ConnectionReset
    | Hang
    | SlowBytes
    | StreamEffect
)
EFFECTS: dict[str, type[Effect]] = {
    effect.model_fields["type"].default: effect for effect in get_args(Effect)
}
