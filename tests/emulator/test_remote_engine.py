"""`--engine remote` from end to end: one emulator behind another."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from servemu.clock import PausedClock
from servemu.settings import Settings
from servemu.testing import Emulator, serve

Json = dict[str, Any]
Connect = Callable[..., httpx.Client]

CHAT = "databricks-meta-llama-3-3-70b-instruct"
EMBEDDINGS = "databricks-gte-large-en"
FAR = "emu.far-away"
BODY = {"messages": [{"role": "user", "content": "Why do lighthouses flash at night?"}]}


@pytest.fixture(scope="module")
def near(emulator: Emulator) -> Iterator[Emulator]:
    """The emulator whose models run on the other one."""
    settings = Settings(
        engine="remote",
        remote_url=f"{emulator.url}/serving-endpoints",
        remote_model=CHAT,
        remote_embedding_model=EMBEDDINGS,
        remote_key=FAR,
    )
    with serve(settings, PausedClock()) as running:
        yield running


@pytest.fixture
def client(near: Emulator, connect: Connect) -> Iterator[httpx.Client]:
    with connect(near.url) as client:
        yield client


@pytest.fixture
def far(emulator: Emulator, connect: Connect) -> Iterator[httpx.Client]:
    """The workspace of the other emulator that is asked; its replies go with the test."""
    with connect(emulator.url, FAR) as client:
        yield client
        client.delete("/_emulator/replies")


def ask(client: httpx.Client, **fields: object) -> httpx.Response:
    return client.post(f"/serving-endpoints/{CHAT}/invocations", json={**BODY, **fields})


def test_answer_and_its_counts_are_the_remote_servers(
    client: httpx.Client, far: httpx.Client
) -> None:
    own, remote = ask(client, max_tokens=9).json(), ask(far, max_tokens=9).json()
    assert own["choices"] == remote["choices"]
    assert own["usage"] == remote["usage"]


def test_tool_calls_come_through_unary_and_streamed(
    client: httpx.Client, far: httpx.Client
) -> None:
    call = {"id": "call_1", "name": "weather", "arguments": '{"city": "Paris"}'}
    far.post("/_emulator/replies", json={"tool_calls": [call]})
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    [choice] = ask(client, tools=tools).json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"] == [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
        }
    ]
    assert '"call_1"' in ask(client, tools=tools, stream=True).text


def test_vectors_are_the_remote_servers(client: httpx.Client, far: httpx.Client) -> None:
    url, body = f"/serving-endpoints/{EMBEDDINGS}/invocations", {"input": ["a cat"]}
    own, remote = client.post(url, json=body).json(), far.post(url, json=body).json()
    assert own["data"] == remote["data"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (
            {"status": 429, "message": "Slow down.", "retry_after": 7},
            429,
            {
                "error_code": "REQUEST_LIMIT_EXCEEDED",
                "message": "remote server answered 429: Slow down.",
            },
        ),
        (
            {"status": 400, "error_code": "BAD_REQUEST", "message": "Bad request: too hot\n"},
            400,
            {"error_code": "BAD_REQUEST", "message": "Bad request: too hot\n"},
        ),
        (
            {"status": 500, "message": "Out of memory."},
            503,
            {
                "error_code": "TEMPORARILY_UNAVAILABLE",
                "message": "remote server answered 500: Out of memory.",
            },
        ),
    ],
    ids=["429", "400", "500"],
)
def test_failure_over_there_is_the_same_failure_here(
    client: httpx.Client, far: httpx.Client, error: Json, status: int, body: Json, stream: bool
) -> None:
    ask(client)  # the engine is up
    far.post("/_emulator/replies", json={"error": error})
    failed = ask(client, stream=stream)
    assert (failed.status_code, failed.json()) == (status, body)
    assert failed.headers.get("retry-after") == ("7" if status == 429 else None)


def test_deployment_waits_for_a_server_that_answers(connect: Connect) -> None:
    settings = Settings(engine="remote", remote_url="http://127.0.0.1:1/v1")
    with serve(settings, PausedClock()) as running, connect(running.url) as client:
        refused = ask(client)
    assert (refused.status_code, refused.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    message = "Model server failed to load the model. remote server http://127.0.0.1:1/v1 does not"
    assert refused.json()["message"].startswith(message)


def test_up_serves_from_the_server_of_its_flags(emulator: Emulator, connect: Connect) -> None:
    command = [sys.executable, "-m", "servemu", "up", "--port", "0", "--engine", "remote"]
    command += ["--remote-url", f"{emulator.url}/serving-endpoints", "--remote-model", CHAT]
    command += ["--remote-key", FAR]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            ready = re.fullmatch(r"servemu ready (http://\S+)\n", running.stdout.readline())
            assert ready is not None
            with connect(ready[1]) as client, connect(emulator.url, FAR) as far:
                assert ask(client).json()["choices"] == ask(far).json()["choices"]
                models = client.get("/_emulator/models").json()["models"]
            [model] = [model for model in models if model["resident"]]
            assert (model["engine"], model["architecture"]) == ("remote", CHAT)
        finally:
            running.terminate()
