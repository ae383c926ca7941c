"""Fixtures shared by all tests: a running emulator, and a workspace of its own for each test."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from servemu.clock import PausedClock
from servemu.settings import Settings
from servemu.testing import Emulator, serve

Json = dict[str, Any]

ENDPOINTS = "/api/2.0/serving-endpoints"
CHUNK = 1580
_numbers = itertools.count(1)


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, as the server does."""
    return "asyncio"


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One emulator for all tests: synthetic engine, a clock that only `advance` moves, and a model
    store of its own, which tests may delete from.
    """
    settings = Settings(engine="synthetic", model_store=tmp_path_factory.mktemp("models"))
    with serve(settings, PausedClock()) as running:
        yield running


@pytest.fixture
def skip_pauses(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Answers' pauses of so many seconds, or of two or three times as many, pass at once from here
    on; the list answered fills with how many times each was.
    """
    clock = emulator.world.clock
    sleep_until = clock.sleep_until

    def skip_pauses(seconds: int) -> list[int]:
        skipped: list[int] = []

        async def leap(deadline: float) -> None:
            if (times := round((deadline - clock.monotonic()) / seconds)) in (1, 2, 3):
                skipped.append(times)
            else:
                await sleep_until(deadline)

        monkeypatch.setattr(clock, "sleep_until", leap)
        return skipped

    return skip_pauses


@pytest.fixture(scope="session")
def connect() -> Callable[[str, str | None], httpx.Client]:
    """Makes a client of an emulator's URL, by default in a workspace that nobody else has."""

    def connect(url: str, token: str | None = None) -> httpx.Client:
        token = token or f"emu.test-{next(_numbers)}"
        headers = {"Authorization": f"Bearer {token}"}
        # Certificates would be read for every client: 50 ms, and nobody speaks TLS here.
        return httpx.Client(
            base_url=url, headers=headers, timeout=20, trust_env=False, verify=False
        )

    return connect


@pytest.fixture
def workspace(emulator: Emulator, connect: Callable[[str], httpx.Client]) -> Iterator[httpx.Client]:
    """Plain HTTP with this test's own token: its endpoints, faults and clock are its own."""
    with connect(emulator.url) as client:
        yield client


@pytest.fixture(scope="session")
def entity() -> Callable[..., Json]:
    """Makes a served entity of the seed page's model, two to three chunks; fields may be changed.

    A field that is None is left out.
    """

    def entity(**fields: object) -> Json:
        given = {
            "entity_name": "ml.llm-catalog.foundation-model",
            "entity_version": "3",
            "min_provisioned_throughput": 2 * CHUNK,
            "max_provisioned_throughput": 3 * CHUNK,
            **fields,
        }
        return {key: value for key, value in given.items() if value is not None}

    return entity


@pytest.fixture
def create(workspace: httpx.Client, entity: Callable[..., Json]) -> Callable[..., Json]:
    """Creates an endpoint with the entities (default: the one of `entity`); answers its body."""

    def create(name: str = "llama", *entities: Json, **fields: object) -> Json:
        config = {"served_entities": list(entities) or [entity()]}
        answer = workspace.post(ENDPOINTS, json={"name": name, "config": config, **fields})
        assert answer.status_code == 200, answer.text
        body: Json = answer.json()
        return body

    return create


@pytest.fixture
def get(workspace: httpx.Client) -> Callable[[str], Json]:
    """The endpoint as it is now."""

    def get(name: str = "llama") -> Json:
        answer = workspace.get(f"{ENDPOINTS}/{name}")
        assert answer.status_code == 200, answer.text
        body: Json = answer.json()
        return body

    return get


@pytest.fixture
def advance(workspace: httpx.Client) -> Callable[[float], None]:
    """Moves the workspace's clock: seconds of its own time, so an 8B is up after 1.5."""

    def advance(seconds: float) -> None:
        answer = workspace.post("/_emulator/clock/advance", json={"seconds": seconds})
        assert answer.status_code == 200, answer.text

    return advance


@pytest.fixture(scope="session")
def assert_fails() -> Callable[[httpx.Response, int, str, str], None]:
    """Checks a failure of the control plane, whole."""

    def assert_fails(answer: httpx.Response, status: int, error_code: str, message: str) -> None:
        """The whole body, and that its request id is the header's (facts/control_plane §4)."""
        details = {
            "@type": "type.googleapis.com/google.rpc.RequestInfo",
            "request_id": answer.headers["x-request-id"],
            "serving_data": "",
        }
        body = {"error_code": error_code, "message": message, "details": [details]}
        assert (answer.status_code, answer.json()) == (status, body)
        assert answer.headers["content-type"] == "application/json"

    return assert_fails
