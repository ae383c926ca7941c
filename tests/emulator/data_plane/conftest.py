"""A small app with the data-plane routes over scripted endpoints; clocks that need no waiting."""

import asyncio
import heapq
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import pytest
import uvicorn
from openai import OpenAI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from servemu.auth import Principal
from servemu.clock import Clock, SystemClock
from servemu.dice import Dice
from servemu.errors import ApiError, InvocationEndpointNotFound
from servemu.responses import on_api_error
from servemu.routes import anthropic, invocations, openai
from servemu.serving import Served, Task
from servemu.throughput.budget import TokenBudget
from servemu_engine.base import Chunk, EngineInfo, GenerateRequest, PreparedRequest
from servemu_engine.synthetic import Replies, SyntheticEngine


class SteppedClock:
    """Time moves only in `run`, from one sleeper's deadline to the next."""

    def __init__(self) -> None:
        self._now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    async def sleep_until(self, deadline: float) -> None:
        if deadline <= self._now:
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (deadline, id(woken), woken))
        await woken

    async def wait(self, event: asyncio.Event, until: float | None) -> None:
        raise NotImplementedError

    async def run(self, until: float) -> None:
        """Let everything happen that is due by then, in order."""
        await self._settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            deadline, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                self._now = max(self._now, deadline)
                woken.set_result(None)
                await self._settle()
        self._now = max(self._now, until)

    async def _settle(self) -> None:
        for _ in range(10 + 3 * len(asyncio.all_tasks())):
            await asyncio.sleep(0)


class JumpingClock(SystemClock):
    """Whoever sleeps is there at once: for budgets whose pauses a test only wants to add up."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        return self._now

    async def sleep_until(self, deadline: float) -> None:
        self._now = max(self._now, deadline)
        await asyncio.sleep(0)


class HeldClock(SystemClock):
    """Whoever sleeps does so until `release`, which any thread may call."""

    def __init__(self) -> None:
        self.sleeping = threading.Event()
        self.left = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._released = asyncio.Event()

    def monotonic(self) -> float:
        return 0.0

    async def sleep_until(self, deadline: float) -> None:
        self._loop = asyncio.get_running_loop()
        self.sleeping.set()
        try:
            await self._released.wait()
        finally:
            self.left.set()

    def release(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._released.set)


@dataclass(eq=False)
class ScriptedEngine:
    """Says what it is told, then raises `failure` if there is one, or stands still if `hangs`."""

    script: Sequence[Chunk]
    failure: Exception | None = None
    hangs: bool = False
    refusal: Exception | None = None
    """What `prepare` raises."""
    num_prompt_tokens: int = 3
    requests: list[GenerateRequest] = field(default_factory=list)
    entered: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)

    @property
    def info(self) -> EngineInfo:
        return SyntheticEngine("scripted").info

    def start(self) -> None: ...

    def close(self) -> None: ...

    def prepare(self, request: GenerateRequest) -> PreparedRequest:
        self.requests.append(request)
        if self.refusal is not None:
            raise self.refusal
        return PreparedRequest(request, (1,), self.num_prompt_tokens, 100)

    def submit(self, prepared: PreparedRequest) -> "ScriptedGeneration":
        return ScriptedGeneration(self)


class ScriptedGeneration:
    def __init__(self, engine: ScriptedEngine) -> None:
        self._engine = engine

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        for chunk in self._engine.script:
            yield chunk
        if self._engine.failure is not None:
            raise self._engine.failure
        if self._engine.hangs:
            await asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> "ScriptedGeneration":
        self._engine.entered.set()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._engine.left.set()


@dataclass(frozen=True)
class Limits:
    max_body_bytes: int = 64 * 1024
    request_timeout: float = 60.0


class Plane:
    """The world of the small app: endpoints by name, which a test adds as it needs them."""

    def __init__(self) -> None:
        self.router = self
        self.settings = Limits()
        self.clock: Clock = SystemClock()
        self.dice = Dice(None)
        self.url = ""
        self._served: dict[str, Served] = {}

    def add(self, name: str, task: Task, engine: ScriptedEngine | SyntheticEngine) -> Served:
        """An endpoint without a limit."""
        return self.add_limited(name, task, engine, TokenBudget(None, self.clock))

    def add_limited(
        self,
        name: str,
        task: Task,
        engine: ScriptedEngine | SyntheticEngine,
        budget: TokenBudget,
    ) -> Served:
        """An endpoint with a budget."""
        served = Served(
            workspace="default",
            endpoint=name,
            entity=f"{name}-1",
            model=f"{name}-model",
            task=task,
            engine=engine,
            embedder=engine if isinstance(engine, SyntheticEngine) else None,
            budget=budget,
            context_length=1000,
            dimensions=8,
            api_types=("openai/v1/responses", "anthropic/v1/messages"),
        )
        self._served[name] = served
        return served

    @contextmanager
    def post_without_waiting(self, path: str, body: object) -> Iterator[None]:
        """Send a request, and hang up at the end of the `with`."""
        url = httpx.URL(self.url + path)
        data = json.dumps(body).encode()
        head = f"POST {url.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
        with socket.create_connection((url.host, url.port or 80)) as connection:
            connection.sendall(head.encode() + data)
            yield

    async def route(
        self, caller: Principal, endpoint: str, served_entity: str | None = None
    ) -> Served:
        assert caller.workspace == "default"
        served = self._served.get(endpoint)
        if served is None or served_entity not in (None, served.entity):
            raise InvocationEndpointNotFound
        return served


class _Identified:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["principal"] = Principal()
        scope["request_id"] = "r"
        await self._app(scope, receive, send)


ROUTES = [
    Route("/serving-endpoints/chat/completions", openai.chat_completions, methods=["POST"]),
    Route("/serving-endpoints/completions", openai.completions, methods=["POST"]),
    Route("/serving-endpoints/embeddings", openai.embeddings, methods=["POST"]),
    Route("/serving-endpoints/responses", openai.responses, methods=["POST"]),
    Route("/serving-endpoints/anthropic/v1/messages", anthropic.messages, methods=["POST"]),
    Route("/serving-endpoints/{name}/invocations", invocations.invoke, methods=["POST"]),
    Route(
        "/serving-endpoints/{name}/served-models/{entity}/invocations",
        invocations.invoke,
        methods=["POST"],
    ),
]


@pytest.fixture(scope="session")
def plane_app() -> Iterator[tuple[Starlette, str]]:
    """The small app behind a real uvicorn."""
    app = Starlette(
        routes=ROUTES,
        middleware=[Middleware(_Identified)],
        exception_handlers={ApiError: on_api_error},
    )
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield app, f"http://127.0.0.1:{listening.getsockname()[1]}/serving-endpoints"
    server.should_exit = True
    thread.join()


@pytest.fixture
def plane(plane_app: tuple[Starlette, str]) -> Plane:
    """An empty world behind the small app."""
    app, url = plane_app
    world = Plane()
    world.url = url
    app.state.world = world
    return world


@pytest.fixture
def http(plane: Plane) -> Iterator[httpx.Client]:
    """Plain HTTP against the small app."""
    with httpx.Client(base_url=plane.url, timeout=20) as client:
        yield client


@pytest.fixture
def sdk(plane: Plane) -> Iterator[OpenAI]:
    """openai-python, unmodified, against the small app."""
    with OpenAI(base_url=plane.url, api_key="x", max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture
def stepped_clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def jumping_clock() -> JumpingClock:
    return JumpingClock()


@pytest.fixture
def held_clock() -> HeldClock:
    return HeldClock()


@pytest.fixture(scope="session")
def clock_type() -> type[SteppedClock]:
    """For tests that need many: hypothesis runs all examples with the same fixtures."""
    return SteppedClock


@pytest.fixture
def make_plane() -> Callable[[], Plane]:
    """A world without an app."""
    return Plane


@pytest.fixture
def scripted() -> type[ScriptedEngine]:
    """Makes engines that follow a script."""
    return ScriptedEngine


@pytest.fixture
def synthetic() -> SyntheticEngine:
    """An engine whose greedy answers are always the same, some tokens to a chunk."""
    return SyntheticEngine("m", replies=Replies(tokens_per_chunk=3))


@pytest.fixture
def hello() -> list[Chunk]:
    """Three tokens of an answer that stopped by itself."""
    return [Chunk(0, "He", 1), Chunk(0, "llo", 2), Chunk(0, "", 1, finish_reason="stop")]
