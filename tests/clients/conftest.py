"""Live emulators on real weights and on synthetic ones, and the real clients pointed at them."""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.config import Config
from openai import DefaultHttpxClient, OpenAI
from tests.preset_clients import UP, Sleepless

from servemu.settings import Settings
from servemu.testing import Emulator, serve

Json = dict[str, Any]
FAULTS = "/_emulator/faults"


@pytest.fixture(scope="session")
def model_store() -> Path:
    """The weights that `make weights` fetched. Without them these tests fail; they never skip."""
    store = Path(os.environ.get("SERVEMU_MODEL_STORE", "~/.cache/servemu/models")).expanduser()
    assert (store / "smollm2-135m-instruct" / "servemu.json").exists(), "run `make weights`"
    return store


@pytest.fixture(scope="session")
def real(model_store: Path) -> Iterator[Emulator]:
    """An emulator on SmolLM2 and MiniLM; deployments take a six hundredth of their real time."""
    settings = Settings(model_store=model_store, speedup=600, database=":memory:")
    with serve(settings) as emulator:
        yield emulator


@pytest.fixture
def token() -> str:
    """Selects a workspace that no other test sees."""
    return f"emu.{uuid.uuid4().hex}"


@pytest.fixture
def databricks(real: Emulator, token: str) -> WorkspaceClient:
    return WorkspaceClient(host=real.url, token=token)


@pytest.fixture
def openai(real: Emulator, token: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{real.url}/serving-endpoints", api_key=token) as client:
        yield client


@pytest.fixture
def clock() -> Sleepless:
    return Sleepless()


@pytest.fixture
def sdk(emulator: Emulator, workspace: httpx.Client, clock: Sleepless) -> WorkspaceClient:
    """databricks-sdk in the workspace of the test; it gives up after 8 s of its clock."""
    token = workspace.headers["Authorization"].removeprefix("Bearer ")
    config = Config(host=emulator.url, token=token, retry_timeout_seconds=8, clock=clock)
    return WorkspaceClient(config=config)


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """openai's pauses between attempts: they pass at once."""
    slept: list[float] = []

    class Time:
        time = staticmethod(time.time)
        sleep = staticmethod(slept.append)

    monkeypatch.setattr("openai._base_client.time", Time)
    return slept


@pytest.fixture
def chat(emulator: Emulator, workspace: httpx.Client, naps: list[float]) -> Iterator[OpenAI]:
    token = workspace.headers["Authorization"].removeprefix("Bearer ")
    url = f"{emulator.url}/serving-endpoints"
    plain = DefaultHttpxClient(trust_env=False, verify=False)  # no TLS: 50 ms a test
    with OpenAI(base_url=url, api_key=token, http_client=plain) as client:
        yield client


@pytest.fixture
def arm(workspace: httpx.Client) -> Callable[..., str]:
    """Adds the preset, with other values for some of its fields; answers the rule's id."""

    def arm(preset: str, **fields: object) -> str:
        answer = workspace.post(FAULTS, json={"preset": preset, **fields})
        assert answer.status_code == 200, answer.text
        rule_id: str = answer.json()["id"]
        return rule_id

    return arm


@pytest.fixture
def fired(workspace: httpx.Client) -> Callable[[str], int]:
    """How often a rule hit."""

    def fired(rule_id: str) -> int:
        return int(workspace.get(f"{FAULTS}/{rule_id}").json()["fired"])

    return fired


@pytest.fixture
def llama(create: Callable[..., Json], advance: Callable[[float], None]) -> str:
    """An endpoint that serves."""
    create()
    advance(UP)
    return "llama"
