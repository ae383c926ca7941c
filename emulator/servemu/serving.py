"""What serves a request on the data plane, and the one place that knows where it is found."""

from dataclasses import dataclass
from typing import Literal, Protocol

from starlette.requests import Request

from servemu.auth import Principal
from servemu.catalog.signatures import Signature
from servemu.clock import Clock
from servemu.dice import Dice
from servemu.throughput.budget import TokenBudget
from servemu.throughput.limits import WorkspaceLimits
from servemu.throughput.pace import Pace
from servemu_engine.base import Embedder, Engine

Task = Literal["llm/v1/chat", "llm/v1/completions", "llm/v1/embeddings", "custom"]


@dataclass(frozen=True, slots=True)
class Served:
    """The served entity that the traffic split chose, with what runs it and what limits it."""

    workspace: str
    endpoint: str
    entity: str
    """Name of the served entity: the `served-model-name` header."""
    model: str
    """What answers show as `model`."""
    task: Task
    engine: Engine | None
    """Set for chat, completions and custom models."""
    embedder: Embedder | None
    """Set for embeddings."""
    budget: TokenBudget
    """Shared by all requests to the endpoint."""
    context_length: int
    """Tokens, of the model that is played."""
    dimensions: int | None = None
    """Length of the vectors; None: the embedder's own."""
    normalize: bool = False
    model_type: str = ""
    """Of the played family: what requests it takes (`schemas.reasoning`)."""
    limits: WorkspaceLimits | None = None
    """Of the workspace; None: it has none here (pay-per-token)."""
    pace: Pace | None = None
    """Of the played model; None: as fast as budget and engine allow."""
    signature: Signature | None = None
    """Of a custom model."""
    api_types: tuple[str, ...] = ()
    """The APIs it speaks besides those of its task, as listings name them."""


class Router(Protocol):
    """Knows which served entity answers."""

    async def route(
        self, caller: Principal, endpoint: str, served_entity: str | None = None
    ) -> Served:
        """By traffic, or as named.

        Raises `InvocationEndpointNotFound`, `InvocationDenied`, `EndpointNotReady`.
        """


class Limits(Protocol):
    """The settings that bound one request (`servemu.settings.Settings`)."""

    @property
    def max_body_bytes(self) -> int: ...

    @property
    def request_timeout(self) -> float:
        """Seconds."""


class ServingWorld(Protocol):
    """What the data plane needs of the app's `World`."""

    @property
    def router(self) -> Router: ...

    @property
    def settings(self) -> Limits: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def dice(self) -> Dice: ...


def world_of(request: Request) -> ServingWorld:
    """The world the app was created with."""
    world: ServingWorld = request.app.state.world
    return world


def caller_of(request: Request) -> Principal:
    """Who asks, as the identity middleware found it."""
    principal: Principal = request.scope["principal"]
    return principal
