"""Scripted replies over HTTP: which request gets which, what is refused, what stays as it was."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from servemu.replies import Replies
from servemu.schemas.replies import Reply
from servemu.settings import Settings
from servemu.testing import Emulator, serve

Json = dict[str, Any]
REPLIES = "/_emulator/replies"
CHAT = "databricks-meta-llama-3-3-70b-instruct"


@pytest.fixture
def ask(workspace: httpx.Client) -> Callable[..., httpx.Response]:
    """Asks the pay-per-token chat endpoint."""

    def ask(message: str = "What is the capital of France?", **fields: object) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": message}], **fields}
        return workspace.post(f"/serving-endpoints/{CHAT}/invocations", json=body)

    return ask


@pytest.fixture
def add(workspace: httpx.Client) -> Callable[..., Json]:
    def add(**reply: object) -> Json:
        answer = workspace.post(REPLIES, json=reply)
        assert answer.status_code == 200, answer.text
        body: Json = answer.json()
        return body

    return add


def text_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def test_matching_request_gets_the_text_and_pays_for_it(
    ask: Callable[..., httpx.Response], add: Callable[..., Json]
) -> None:
    plain = ask().json()["usage"]["prompt_tokens"]
    add(match={"message": "capital of France"}, text="It is Paris.")
    answer = ask().json()
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "It is Paris."},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ]
    assert answer["usage"] == {
        "prompt_tokens": plain,
        "completion_tokens": 4,
        "total_tokens": plain + 4,
    }


def test_streamed_reply_comes_token_by_token(
    ask: Callable[..., httpx.Response], add: Callable[..., Json]
) -> None:
    add(text="It is Paris.")
    lines = [line[6:] for line in ask(stream=True).text.splitlines() if line]
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines[:-1]]
    said = [delta["content"] for delta in deltas if delta.get("content")]
    assert (said, lines[-1]) == (["It", " is", " Paris", "."], "[DONE]")


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ({"endpoint": "databricks-meta-*"}, True),
        ({"endpoint": "gpt-*"}, False),
        ({"model": "system.ai.llama_v3_3*"}, True),
        ({"model": "meta-llama-3.3-*"}, True),
        ({"model": "gpt-*"}, False),
        ({"message": "capital"}, True),
        ({"message": "Capital"}, False),
        ({"pattern": "^What .* France[?]$"}, True),
        ({"pattern": "^France"}, False),
        ({"message": "capital", "endpoint": "gpt-*"}, False),
    ],
    ids=str,
)
def test_everything_in_a_match_must_agree(
    ask: Callable[..., httpx.Response], add: Callable[..., Json], match: Json, hit: bool
) -> None:
    add(match=match, text="scripted")
    assert (text_of(ask()) == "scripted") is hit


def test_first_match_wins_until_it_was_given_so_often(
    workspace: httpx.Client, ask: Callable[..., httpx.Response], add: Callable[..., Json]
) -> None:
    add(id="once", text="one", times=1)
    add(id="always", text="two")
    assert [text_of(ask()) for _ in range(3)] == ["one", "two", "two"]
    assert workspace.get(REPLIES).json() == {
        "replies": [
            {
                "id": "once",
                "match": {"endpoint": "*", "model": "*"},
                "times": 1,
                "text": "one",
                "source": "api",
                "used": 1,
                "remaining": 0,
            },
            {
                "id": "always",
                "match": {"endpoint": "*", "model": "*"},
                "text": "two",
                "source": "api",
                "used": 2,
                "remaining": None,
            },
        ]
    }


def test_error_goes_out_as_a_wire_error(
    ask: Callable[..., httpx.Response], add: Callable[..., Json]
) -> None:
    error = {"status": 429, "message": "Slow down.", "retry_after": 2}
    reply_id = add(error=error, times=1)["id"]
    for stream in (True, False):
        answer = ask(stream=stream)
        if stream:
            assert answer.status_code == 429
            assert answer.json() == {
                "error_code": "REQUEST_LIMIT_EXCEEDED",
                "message": "Slow down.",
            }
            assert answer.headers["retry-after"] == "2"
            assert answer.headers["x-emulator-reply"] == reply_id
        else:
            assert answer.status_code == 200


def test_error_replies_reach_embeddings_and_texts_do_not(
    workspace: httpx.Client, add: Callable[..., Json]
) -> None:
    add(text="never said")
    add(match={"message": "broken"}, error={"status": 418, "error_code": "TEAPOT"})
    url = "/serving-endpoints/databricks-gte-large-en/invocations"
    assert workspace.post(url, json={"input": ["whole"]}).status_code == 200
    refused = workspace.post(url, json={"input": ["whole", "broken"]})
    assert (refused.status_code, refused.json()) == (418, {"error_code": "TEAPOT", "message": ""})


BAD: dict[str, tuple[Json, str]] = {
    "nothing": ({}, "field 'text': Value error, one of text, tool_calls and error must be given"),
    "both": (
        {"text": "a", "error": {"status": 500}},
        "field 'text': Value error, text and tool_calls cannot be given together with error",
    ),
    "pattern": (
        {"text": "a", "match": {"pattern": "("}},
        "field 'match.pattern': Value error, no regular expression: missing )",
    ),
    "glob": ({"text": "a", "match": {"endpoint": "a b"}}, "field 'match.endpoint': String should"),
    "misspelt": ({"text": "a", "txt": "a"}, "field 'txt': Extra inputs are not permitted"),
    "times": ({"text": "a", "times": 0}, "field 'times': Input should be greater than"),
    "status": ({"error": {"status": 200}}, "field 'error.status': Input should be greater than"),
    "code": (
        {"error": {"status": 418}},
        "field 'error.error_code': Value error, must be given with status 418",
    ),
    "tool": ({"tool_calls": [{"name": "a b"}]}, "field 'tool_calls[0].name': String should match"),
    "finish": (
        {"text": "a", "finish_reason": "x"},
        "field 'finish_reason': Input should be 'stop'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_reply_is_refused_by_the_name_of_its_field(workspace: httpx.Client, case: str) -> None:
    given, message = BAD[case]
    refused = workspace.post(REPLIES, json=given)
    assert (refused.status_code, refused.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert refused.json()["message"].startswith(f"Invalid value for {message}")
    assert workspace.get(REPLIES).json() == {"replies": []}


def test_id_is_taken_once_and_removed_once(
    workspace: httpx.Client, add: Callable[..., Json]
) -> None:
    stored = add(id="hi", text="a")
    assert workspace.get(f"{REPLIES}/hi").json() == stored
    taken = workspace.post(REPLIES, json={"id": "hi", "text": "b"})
    assert (taken.status_code, taken.json()["message"]) == (
        409,
        "Scripted reply with id 'hi' already exists.",
    )
    assert workspace.delete(f"{REPLIES}/hi").json() == {}
    gone = workspace.delete(f"{REPLIES}/hi")
    assert (gone.status_code, gone.json()["message"]) == (
        404,
        "Scripted reply with id 'hi' does not exist.",
    )


def test_other_workspaces_have_replies_of_their_own(
    emulator: Emulator, connect: Callable[[str], httpx.Client], add: Callable[..., Json]
) -> None:
    add(text="mine")
    with connect(emulator.url) as other:
        assert other.get(REPLIES).json() == {"replies": []}


def test_replies_and_their_use_are_there_after_a_restart(
    emulator: Emulator, ask: Callable[..., httpx.Response], add: Callable[..., Json]
) -> None:
    stored = add(text="kept", times=3)
    ask()
    replies = emulator.world.replies
    workspace = next(
        name
        for name, kept in replies._kept.items()
        if [one.stored.id for one in kept] == [stored["id"]]
    )
    again = Replies(emulator.world.db)
    [read], [kept_before] = again.list_all(workspace), replies.list_all(workspace)
    assert (read.stored, read.stored.used) == (kept_before.stored, 1)


def test_replies_of_the_config_file_hold_in_every_workspace_and_stay(
    connect: Callable[..., httpx.Client],
) -> None:
    settings = Settings(engine="synthetic", port=0, replies=(Reply(text="from the file"),))
    with serve(settings) as running, connect(running.url) as client:
        body = {"messages": [{"role": "user", "content": "Hi"}]}
        asked = client.post(f"/serving-endpoints/{CHAT}/invocations", json=body)
        assert text_of(asked) == "from the file"
        client.delete(REPLIES)
        [shown] = client.get(REPLIES).json()["replies"]
        assert (shown["id"], shown["source"], shown["used"]) == ("config-1", "config", 0)
        refused = client.delete(f"{REPLIES}/config-1")
        assert (refused.status_code, refused.json()["error_code"]) == (
            400,
            "INVALID_PARAMETER_VALUE",
        )
