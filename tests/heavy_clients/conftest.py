"""A live emulator and an environment in which the clients know of nothing else.

They are imported with this file, so what they read at import is set above everything.
"""

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from servemu.settings import Settings
from servemu.testing import Emulator, serve

Json = dict[str, Any]

ENDPOINTS = "/api/2.0/serving-endpoints"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
FOREIGN = ("DATABRICKS_", "ARM_", "AZURE_", "GOOGLE_", "OPENAI_", "LANGSMITH_", "LANGCHAIN_")
QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}
os.environ.update(QUIET)

_called: list[str] = []


def _only_this_machine(event: str, args: tuple[Any, ...]) -> None:
    """Refuse and note whatever leaves this machine: an audit hook sees every library's calls."""
    if event == "socket.getaddrinfo":
        host = args[0]
    elif event == "socket.connect" and isinstance(args[1], tuple):
        host = args[1][0]
    else:
        return
    if host not in LOOPBACK:
        _called.append(str(host))
        raise ConnectionRefusedError(f"{host!r} is not this machine")


sys.addaudithook(_only_this_machine)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    """Deployments move only when a test advances the clock: at this speedup they take minutes."""
    with serve(Settings(engine="synthetic", speedup=1)) as running:
        yield running


@pytest.fixture(scope="session")
def slow() -> Iterator[Emulator]:
    """A thousandth of the budgets, one request at a time: one stream keeps an endpoint busy."""
    settings = Settings(engine="synthetic", speedup=1, throughput_scale=0.001, max_concurrency=1)
    with serve(settings) as running:
        yield running


@pytest.fixture
def token() -> str:
    """Selects a workspace that no other test sees."""
    return f"emu.{uuid.uuid4().hex}"


@pytest.fixture
def point_at(monkeypatch: pytest.MonkeyPatch, token: str) -> Callable[[str], None]:
    """Sets what users set: the host and the token, and litellm's own pair."""

    def point_at(url: str) -> None:
        monkeypatch.setenv("DATABRICKS_HOST", url)
        monkeypatch.setenv("DATABRICKS_TOKEN", token)
        monkeypatch.setenv("DATABRICKS_API_BASE", f"{url}/serving-endpoints")
        monkeypatch.setenv("DATABRICKS_API_KEY", token)

    return point_at


@pytest.fixture(autouse=True)
def environment(
    emulator: Emulator,
    point_at: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[None]:
    """Host and token of the emulator, nothing of the developer's; whoever calls out fails."""
    for name in list(os.environ):
        if name.startswith(FOREIGN) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    point_at(emulator.url)
    _called.clear()
    yield
    assert _called == []


@pytest.fixture
def raw(emulator: Emulator, token: str) -> Iterator[httpx.Client]:
    """Plain HTTP in the test's workspace, to see what the clients cannot hide."""
    with connect(emulator.url, token) as client:
        yield client


@pytest.fixture
def settle(raw: httpx.Client) -> Callable[[], None]:
    """Lets every deployment under way come to its end."""

    def settle() -> None:
        raw.post("/_emulator/clock/advance", json={"seconds": 7200}).raise_for_status()

    return settle


@pytest.fixture(scope="session")
def entity() -> Callable[..., Json]:
    """Makes a served entity of the seed page's model; fields may be changed."""

    def entity(**fields: object) -> Json:
        return {
            "entity_name": "ml.llm-catalog.foundation-model",
            "entity_version": "3",
            "min_provisioned_throughput": 3160,
            "max_provisioned_throughput": 4740,
            **fields,
        }

    return entity


@pytest.fixture
def busy(
    slow: Emulator, token: str, point_at: Callable[[str], None], entity: Callable[[], Json]
) -> Callable[[], AbstractContextManager[str]]:
    """Inside of it the clients see an endpoint whose budget is taken; gives the endpoint's name."""

    @contextmanager
    def busy() -> Iterator[str]:
        body = {"name": "busy", "config": {"served_entities": [entity()]}}
        question = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0}
        with connect(slow.url, token) as client:
            client.post(ENDPOINTS, json=body).raise_for_status()
            client.post("/_emulator/clock/advance", json={"seconds": 7200}).raise_for_status()
            path = "/serving-endpoints/busy/invocations"
            with client.stream("POST", path, json={**question, "stream": True}) as stream:
                lines = stream.iter_lines()
                next(lines)
                point_at(slow.url)
                yield "busy"

    return busy


def connect(url: str, token: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=url, headers=headers, timeout=20, trust_env=False, verify=False)
