"""The journal: every request with what came of it, found by what was asked, and no secret in it."""

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from servemu.clock import PausedClock
from servemu.journal import Journal
from servemu.journalling import Journalling
from servemu.settings import Settings
from servemu.testing import Emulator, serve
from servemu.workspace import Workspaces
from servemu_state.database import open_database

Json = dict[str, Any]
Connect = Callable[..., httpx.Client]

B = "/api/2.0/serving-endpoints"
REQUESTS = "/_emulator/requests"
FIELDS = ("operation", "endpoint", "status", "error_code", "client_retry")
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}


def journal(client: httpx.Client, **query: object) -> list[Json]:
    answer = client.get(REQUESTS, params={k: str(v) for k, v in query.items()})
    assert answer.status_code == 200, answer.text
    found: list[Json] = answer.json()["requests"]
    return found


def test_entry_says_what_was_asked_and_what_came_of_it(workspace: httpx.Client) -> None:
    answer = workspace.post(B, json={"name": "one"}, headers={"User-Agent": "my-client/1"})
    [entry] = journal(workspace)
    assert entry.pop("duration") > 0
    assert entry == {
        "number": 1,
        "request_id": answer.headers["x-request-id"],
        "at": 1_750_000_000.0,
        "real_time": 1_750_000_000.0,
        "user": "me@example.com",
        "operation": "serving-endpoints.create",
        "endpoint": "one",
        "served_entity": "",
        "method": "POST",
        "path": B,
        "query": "",
        "status": 200,
        "error_code": "",
        "state": "NOT_READY NOT_UPDATING",
        "fault": None,
        "fault_phase": "",
        "retry_after": "",
        "user_agent": "my-client/1",
        "client_retry": None,
        "attempt": 1,
        "retry_of": None,
        "tokens_in": 0,
        "tokens_out": 0,
        "ttft": None,
        "bytes_in": len(answer.request.content),
        "bytes_out": len(answer.content),
    }


def test_query_counts_tokens_and_a_stream_has_a_time_to_first_token(
    workspace: httpx.Client,
) -> None:
    path = "/serving-endpoints/databricks-meta-llama-3-3-70b-instruct/invocations"
    usage = workspace.post(path, json=CHAT).json()["usage"]
    with workspace.stream("POST", path, json={**CHAT, "stream": True}) as streamed:
        streamed.read()
    whole, stream = journal(workspace, operation="invocations")
    for entry in (whole, stream):
        assert (entry["tokens_in"], entry["tokens_out"]) == (
            usage["prompt_tokens"],
            usage["completion_tokens"],
        )
        assert entry["endpoint"] == "databricks-meta-llama-3-3-70b-instruct"
        assert entry["served_entity"] == whole["served_entity"] != ""
    assert whole["ttft"] is None
    assert 0 < stream["ttft"] <= stream["duration"]


def test_openai_path_is_an_invocation_of_the_endpoint_in_its_body(workspace: httpx.Client) -> None:
    body = {**CHAT, "model": "not-there"}
    workspace.post(
        "/serving-endpoints/chat/completions",
        json=body,
        headers={"x-stainless-retry-count": "2"},
    )
    [entry] = journal(workspace)
    assert [
        entry[k] for k in ("operation", "endpoint", "status", "error_code", "client_retry")
    ] == [
        "invocations",
        "not-there",
        404,
        "ENDPOINT_NOT_FOUND",
        2,
    ]


def test_same_request_after_a_failure_is_a_retry_and_another_body_is_none(
    workspace: httpx.Client,
) -> None:
    for name in ("a_", "a_", "b_", "a_"):
        workspace.post(B, json={"name": name})
    workspace.get(B)
    workspace.get(B)
    entries = journal(workspace)
    first = entries[0]["request_id"]
    assert [(e["attempt"], e["retry_of"]) for e in entries] == [
        (1, None),
        (2, first),
        (1, None),
        (3, first),
        (1, None),
        (1, None),
    ]


def test_same_request_long_after_a_failure_is_no_retry(
    workspace: httpx.Client, advance: Callable[[float], None]
) -> None:
    workspace.post(B, json={"name": "a_"})
    advance(121)
    workspace.post(B, json={"name": "a_"})
    assert [entry["attempt"] for entry in journal(workspace)] == [1, 1]


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ({}, [1, 2, 3, 4]),
        ({"operation": "serving-endpoints.get"}, [2, 3]),
        ({"endpoint": "a"}, [1, 2]),
        ({"status": "404"}, [3, 4]),
        ({"status": "2xx"}, [1, 2]),
        ({"status": "null"}, []),
        ({"since": 2}, [3, 4]),
        ({"limit": 1}, [4]),
        ({"since": 1, "status": "4xx", "endpoint": "b"}, [3]),
    ],
)
def test_requests_are_found_by_what_is_asked(
    workspace: httpx.Client, query: Json, numbers: list[int]
) -> None:
    workspace.post(B, json={"name": "a"})
    workspace.get(f"{B}/a")
    workspace.get(f"{B}/b/")
    workspace.get("/api/2.0/clusters/list")
    assert [entry["number"] for entry in journal(workspace, **query)] == numbers


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("status=teapot", "status must be as 429, 4xx or null, got 'teapot'."),
        ("since=-1", "since must be a whole number up to 1000000000000, got '-1'."),
        ("limit=1e3", "limit must be a whole number up to 1000000, got '1e3'."),
        ("wait=6", "wait must be a whole number up to 5, got '6'."),
    ],
)
def test_bad_query_is_refused_by_name(
    workspace: httpx.Client,
    assert_fails: Callable[..., None],
    query: str,
    message: str,
) -> None:
    assert_fails(workspace.get(f"{REQUESTS}?{query}"), 400, "INVALID_PARAMETER_VALUE", message)


def test_journal_keeps_no_body_no_token_and_no_text_of_a_query(
    emulator: Emulator, connect: Connect
) -> None:
    with connect(emulator.url, "emu.journal-secrets.hidden-user") as client:
        client.get(f"{B}?page_token=s3cret&limit=5&x")
        client.post(B, json={"name": "a", "description": "s3cret"})
        client.get(f"{B}/a/metrics", headers={"Cookie": "s3cret"})
        shown = client.get(REQUESTS).text
        assert json.loads(shown)["requests"][0]["query"] == "page_token=…&limit=5&x=…"
        assert "s3cret" not in shown
        assert "emu.journal" not in shown


def test_journal_is_of_one_workspace_and_without_the_switches(
    emulator: Emulator, connect: Connect, workspace: httpx.Client
) -> None:
    with connect(emulator.url) as other:
        other.get(B)
    workspace.get("/_emulator/health")
    assert journal(workspace) == []


def test_refused_token_is_in_the_journal() -> None:
    settings = Settings(engine="synthetic", auth="strict", tokens=("good",))
    with serve(settings, PausedClock()) as own, httpx.Client(base_url=own.url) as client:
        client.get(B, headers={"Authorization": "Bearer bad"})
        shown = client.get(REQUESTS, headers={"Authorization": "Bearer good"}).json()["requests"]
    assert [(e["path"], e["status"], e["error_code"]) for e in shown] == [(B, 403, "403")]


def test_ring_keeps_the_newest_and_goes_on_counting() -> None:
    settings = Settings(engine="synthetic", journal_size=3)
    with (
        serve(settings, PausedClock()) as own,
        httpx.Client(base_url=own.url, headers={"Authorization": "Bearer x"}) as client,
    ):
        for _ in range(5):
            client.get(B)
        answer = client.get(REQUESTS).json()
    assert [entry["number"] for entry in answer["requests"]] == [3, 4, 5]
    assert answer["next_since"] == 5


def test_wait_answers_as_soon_as_there_is_something_new(
    emulator: Emulator, workspace: httpx.Client, connect: Connect
) -> None:
    token = workspace.headers["Authorization"].removeprefix("Bearer ")
    found: list[Json] = []
    with connect(emulator.url, token) as follower:
        waiting = threading.Thread(
            target=lambda: found.extend(journal(follower, since=0, wait=5)), daemon=True
        )
        waiting.start()
        workspace.get(B)
        waiting.join(timeout=4)
    assert [entry["operation"] for entry in found] == ["serving-endpoints.list"]


async def _asked(app: Journalling, headers: list[tuple[bytes, bytes]]) -> None:
    scope = {
        "type": "http",
        "method": "GET",
        "path": B,
        "query_string": b"",
        "headers": headers,
    }

    async def receive() -> Json:
        return {"type": "http.request", "body": b""}

    async def send(message: object) -> None:
        pass

    await app(scope, receive, send)


def test_answer_that_never_came_is_entered_as_lost_with_its_fault() -> None:
    async def hangs_up(scope: Any, receive: Any, send: Any) -> None:
        from servemu.auth import Principal

        scope["principal"] = Principal()
        scope["request_id"] = "r1"
        scope["fault"] = ("cut-it", "network")

    clock = PausedClock()
    kept = Journal(Workspaces(open_database(":memory:"), clock), clock, 10)
    asyncio.run(_asked(Journalling(hangs_up, kept), [(b"user-agent", b"x")]))
    [entry] = kept.entries("default")
    assert (entry.status, entry.fault, entry.fault_phase) == (None, "cut-it", "network")
    assert entry.failed
