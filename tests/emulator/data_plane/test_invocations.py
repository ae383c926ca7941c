"""The paths of the data plane: which endpoint answers, and bodies of any size and kind."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from servemu_engine.base import Chunk, GenerateRequest, Message, PreparedRequest

if TYPE_CHECKING:
    from tests.emulator.data_plane.conftest import Plane, ScriptedEngine

    from servemu.serving import Task

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
BODY_READ = (Message("user", "hi"),)
LIMIT = 64 * 1024
NOT_FOUND = {
    "error_code": "ENDPOINT_NOT_FOUND",
    "message": "The given endpoint does not exist, please retry after checking the specified "
    "model and version deployment exists.",
}


@pytest.fixture(autouse=True)
def chat(plane: Plane, scripted: type[ScriptedEngine], hello: list[Chunk]) -> None:
    """The endpoint `e` chats."""
    plane.add("e", "llm/v1/chat", scripted(hello))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/e/invocations", BODY),
        ("/e/invocations", {**BODY, "model": "something else"}),
        ("/e/served-models/e-1/invocations", BODY),
        ("/chat/completions", {**BODY, "model": "e"}),
    ],
)
def test_paths_that_reach_the_endpoint(http: httpx.Client, path: str, body: dict[str, Any]) -> None:
    response = http.post(path, json=body)
    assert response.status_code == 200
    assert response.json()["model"] == "e-model"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/nobody/invocations", BODY),
        ("/e/served-models/nobody/invocations", BODY),
        ("/chat/completions", {**BODY, "model": "nobody"}),
        ("/embeddings", {"model": "nobody", "input": "x"}),
    ],
)
def test_endpoint_that_does_not_exist(http: httpx.Client, path: str, body: dict[str, Any]) -> None:
    response = http.post(path, json=body)
    assert response.status_code == 404
    assert response.json() == NOT_FOUND


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/chat/completions", BODY, "model must be the name of a serving endpoint"),
        ("/completions", {"model": "e", "prompt": "x"}, 'json: unknown field "prompt"'),
        ("/embeddings", {"model": "e", "input": "x"}, 'json: unknown field "input"'),
        (
            "/completions",
            {**BODY, "model": "e"},
            'endpoint "e" serves llm/v1/chat, not llm/v1/completions',
        ),
        ("/e/invocations", {"inputs": [1]}, 'json: unknown field "inputs"'),
    ],
)
def test_call_of_the_wrong_task(
    http: httpx.Client, path: str, body: dict[str, Any], message: str
) -> None:
    response = http.post(path, json=body)
    assert response.status_code == 400
    assert response.json() == {"error_code": "BAD_REQUEST", "message": f"Bad request: {message}\n"}


@pytest.mark.parametrize("headers", [{}, {"Context-Type": "text"}, {"Content-Type": "text/plain"}])
def test_content_type_does_not_matter(http: httpx.Client, headers: dict[str, str]) -> None:
    response = http.post("/e/invocations", content=json.dumps(BODY), headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b'{"messages": NaN}'])
def test_body_that_is_not_json(http: httpx.Client, body: bytes) -> None:
    response = http.post("/e/invocations", content=body)
    assert response.status_code == 400
    assert response.json()["error_code"] == "MALFORMED_REQUEST"


def test_body_up_to_the_limit_is_read(http: httpx.Client) -> None:
    body = json.dumps(BODY).encode().ljust(LIMIT)
    assert http.post("/e/invocations", content=body).status_code == 200


@pytest.mark.parametrize("size", [LIMIT + 1, 4 * LIMIT])
def test_body_over_the_limit_is_a_413(http: httpx.Client, size: int) -> None:
    response = http.post("/e/invocations", content=b" " * size)
    assert response.status_code == 413
    assert response.json() == {
        "error_code": "BAD_REQUEST",
        "message": f"Request body ({size} bytes) exceeds the maximum of {LIMIT} bytes.",
    }


def test_body_of_unknown_length_over_the_limit_is_a_413(http: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(5):
            yield b" " * (LIMIT // 4)

    assert http.post("/e/invocations", content=pieces()).status_code == 413


def test_endless_body_is_not_read_to_its_end(http: httpx.Client) -> None:
    response = http.post("/e/invocations", content=b" " * (LIMIT * 20))
    assert response.status_code == 413
    assert response.json()["message"] == f"Request body exceeds the maximum of {LIMIT} bytes."


@pytest.mark.parametrize(
    ("task", "body"),
    [
        ("llm/v1/chat", {"messages": [{"role": "user", "content": "x" * 30_000}]}),
        ("llm/v1/chat", {"messages": [BODY["messages"][0]] * 1000}),
        ("llm/v1/completions", {"prompt": ["x" * 100] * 300}),
    ],
)
def test_long_body_is_read_beside_the_event_loop(
    plane: Plane,
    http: httpx.Client,
    scripted: type[ScriptedEngine],
    monkeypatch: pytest.MonkeyPatch,
    task: Task,
    body: dict[str, Any],
) -> None:
    """It would hold up every stream: 4 MB take seconds to decode and tokenise."""
    engine = scripted([Chunk(0, "", 1, finish_reason="stop")])
    threads: dict[int, set[int]] = {0: set(), 1: set()}

    def prepare(request: GenerateRequest) -> PreparedRequest:
        is_long = request.messages != BODY_READ and request.prompt != "x"
        threads[is_long].add(threading.get_ident())
        return PreparedRequest(request, (1,), 1, 1)

    monkeypatch.setattr(engine, "prepare", prepare)
    plane.add("long", task, engine)
    short = BODY if task == "llm/v1/chat" else {"prompt": "x"}
    for sent in (short, body):
        assert http.post("/long/invocations", json=sent).status_code == 200
    assert threads[0].isdisjoint(threads[1])
