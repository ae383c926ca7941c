"""The paths of the data plane: which endpoint answers, and bodies of any size and kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from servemu_engine.base import Chunk

if TYPE_CHECKING:
    from tests.emulator.data_plane.conftest import Plane, ScriptedEngine

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
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
