"""A live emulator on real weights, and the real clients pointed at it."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from databricks.sdk import WorkspaceClient
from openai import OpenAI

from servemu.settings import Settings
from servemu.testing import Emulator, serve


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
