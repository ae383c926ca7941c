"""The Messages API: bodies, named events and refusals, with anthropic-sdk-python and without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import jsonschema
import pytest
from anthropic import Anthropic, BadRequestError, InternalServerError

from servemu_engine.base import Chunk, ToolCallDelta
from servemu_engine.errors import EngineDead

if TYPE_CHECKING:
    from tests.emulator.data_plane.conftest import Plane, ScriptedEngine

    from servemu.testing import Emulator

Json = dict[str, Any]

MODEL = "databricks-claude-haiku-4-5"
PATH = "/anthropic/v1/messages"
USER: Json = {"role": "user", "content": "The weather in Bern?"}
SCHEMA: Json = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
TOOL: Json = {"name": "get_weather", "description": "of a city", "input_schema": SCHEMA}
USE: Json = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Bern"}}
RESULT: Json = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"}

ASKED: Json = {
    "model": "e",
    "max_tokens": 9,
    "system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
    "messages": [USER],
    "stop_sequences": ["x"],
    "top_k": 5,
    "metadata": {"user_id": "u"},
}
WHOLE: Json = {
    "type": "message",
    "role": "assistant",
    "model": "e-model",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 3,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 4,
    },
}
TEXT_AND_USE = [
    Chunk(0, "Well", 1),
    Chunk(0, "", 1, tool_calls=(ToolCallDelta(0, id="call_1", name="f"),)),
    Chunk(0, "", 1, tool_calls=(ToolCallDelta(0, '{"a"'),)),
    Chunk(0, "", 1, tool_calls=(ToolCallDelta(0, ":1}"),)),
    Chunk(0, "", 1, finish_reason="tool_calls"),
]
USED: Json = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}
EVENTS: list[Json] = [
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "Well"},
    },
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {**USED, "input": {}}},
    {
        "type": "content_block_delta",
        "index": 1,
        "delta": {"type": "input_json_delta", "partial_json": '{"a"'},
    },
    {
        "type": "content_block_delta",
        "index": 1,
        "delta": {"type": "input_json_delta", "partial_json": ":1}"},
    },
    {"type": "content_block_stop", "index": 1},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 5},
    },
    {"type": "message_stop"},
]
"""What comes after `message_start`."""


@pytest.fixture
def claude(emulator: Emulator, workspace: httpx.Client) -> Iterator[Anthropic]:
    """The SDK as Databricks documents it: the token as Bearer, the key unused."""
    url = f"{emulator.url}/serving-endpoints/anthropic"
    headers = {"Authorization": workspace.headers["Authorization"]}
    with Anthropic(
        base_url=url, api_key="unused", default_headers=headers, max_retries=0
    ) as client:
        yield client


def events_of(text: str) -> list[Json]:
    """The events of a stream; each is named by its type."""
    events = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def test_whole_message(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine], hello: list[Chunk]
) -> None:
    engine = scripted(hello)
    plane.add("e", "llm/v1/chat", engine)
    answer = http.post(PATH, json=ASKED)
    message = answer.json()
    assert answer.headers["served-model-name"] == "e-1"
    assert message == {**WHOLE, "id": message["id"]}
    [request] = engine.requests
    assert (request.sampling.max_tokens, request.sampling.top_k) == (9, 5)
    assert request.sampling.stop == ("x",)
    assert [(one.role, one.content) for one in request.messages] == [
        ("system", "Be kind."),
        ("user", USER["content"]),
    ]


def test_streamed_message_with_text_and_a_tool(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine]
) -> None:
    plane.add("e", "llm/v1/chat", scripted(TEXT_AND_USE))
    body = {"model": "e", "max_tokens": 9, "messages": [USER], "tools": [TOOL]}
    whole = http.post(PATH, json=body).json()
    assert whole["content"] == [{"type": "text", "text": "Well"}, USED]
    start, *rest = events_of(http.post(PATH, json={**body, "stream": True}).text)
    assert start["message"]["content"] == []
    assert start["message"]["usage"]["input_tokens"] == 3
    assert rest == EVENTS


def test_anthropic_client_uses_a_tool_and_streams(claude: Anthropic) -> None:
    create: Any = claude.messages.create
    asked: Json = {"model": MODEL, "max_tokens": 200, "tools": [TOOL]}
    first = create(**asked, messages=[USER], tool_choice={"type": "any"})
    (use,) = [block for block in first.content if block.type == "tool_use"]
    assert first.stop_reason == "tool_use"
    assert use.id.startswith("toolu_")
    jsonschema.validate(use.input, SCHEMA)
    called = {"role": "assistant", "content": first.content}
    result = {"role": "user", "content": [{**RESULT, "tool_use_id": use.id}]}
    conversation: Any = [USER, called, result]
    with claude.messages.stream(model=MODEL, max_tokens=200, messages=conversation) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert final.stop_reason == "end_turn"
    assert [block.text for block in final.content if block.type == "text"] == [text] != [""]


def test_results_of_tools_are_turns_of_their_own(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine], hello: list[Chunk]
) -> None:
    engine = scripted(hello)
    plane.add("e", "llm/v1/chat", engine)
    answered = {"role": "user", "content": [RESULT, {"type": "text", "text": "and?"}]}
    messages = [USER, {"role": "assistant", "content": [USE]}, answered]
    http.post(PATH, json={"model": "e", "max_tokens": 9, "messages": messages}).raise_for_status()
    [request] = engine.requests
    assert [(one.role, one.content, one.tool_call_id) for one in request.messages] == [
        ("user", USER["content"], ""),
        ("assistant", "", ""),
        ("tool", "sunny", "toolu_1"),
        ("user", "and?", ""),
    ]
    assert request.messages[1].tool_calls[0].arguments == '{"city": "Bern"}'


def test_message_that_was_cut_says_so(claude: Anthropic) -> None:
    message = claude.messages.create(
        model=MODEL, max_tokens=3, messages=[{"role": "user", "content": "Tell a story"}]
    )
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 3)


def test_message_that_met_a_stop_sequence_names_it(
    claude: Anthropic, workspace: httpx.Client
) -> None:
    workspace.post("/_emulator/replies", json={"text": "one two three"}).raise_for_status()
    message = claude.messages.create(
        model=MODEL,
        max_tokens=9,
        messages=[{"role": "user", "content": "Count"}],
        stop_sequences=["zero", " three"],
    )
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", " three")
    assert [block.text for block in message.content if block.type == "text"] == ["one two"]


@pytest.mark.parametrize("how", ["truncated-stream", "missing-usage"])
def test_stream_faults_hit_events_of_any_name(workspace: httpx.Client, how: str) -> None:
    workspace.post("/_emulator/replies", json={"text": "a b c d e f g h"}).raise_for_status()
    workspace.post("/_emulator/faults", json={"preset": how}).raise_for_status()
    body = {"model": MODEL, "max_tokens": 99, "messages": [USER], "stream": True}
    events = events_of(workspace.post(f"/serving-endpoints{PATH}", json=body).text)
    ended = "message_stop" in [event["type"] for event in events]
    has_usage = any("usage" in event or "usage" in event.get("message", {}) for event in events)
    assert (ended, has_usage) == ((False, True) if how == "truncated-stream" else (True, False))


def test_failure_on_the_way_raises_in_the_client(
    plane: Plane, scripted: type[ScriptedEngine], hello: list[Chunk]
) -> None:
    plane.add("e", "llm/v1/chat", scripted(hello[:1], failure=EngineDead("gone")))
    create: Any = Anthropic(base_url=f"{plane.url}/anthropic", api_key="x").messages.create
    stream = create(model="e", max_tokens=9, messages=[USER], stream=True)
    with pytest.raises(Exception, match="The model server of served entity 'e-1' stopped"):
        list(stream)


def test_client_that_leaves_ends_the_generation(
    plane: Plane, scripted: type[ScriptedEngine], hello: list[Chunk]
) -> None:
    engine = scripted(hello[:1], hangs=True)
    plane.add("e", "llm/v1/chat", engine)
    body = {"model": "e", "max_tokens": 9, "messages": [USER], "stream": True}
    with plane.post_without_waiting(PATH, body):
        assert engine.entered.wait(10)
    assert engine.left.wait(10)


BAD: list[tuple[Json, str]] = [
    ({"max_tokens": None}, "max_tokens: Field required"),
    ({"max_tokens": 0}, "max_tokens: Input should be greater than 0"),
    ({"seed": 1}, "seed: Extra inputs are not permitted"),
    ({"temperature": 2}, "temperature: Input should be less than or equal to 1"),
    (
        {"tools": [{**TOOL, "strict": True}]},
        "tools.0.custom.strict: Extra inputs are not permitted",
    ),
    ({"messages": []}, "messages: at least one message is required"),
    (
        {"messages": [1]},
        "messages.0: Input should be a valid dictionary or object to extract fields from",
    ),
    (
        {"messages": [{"role": "system", "content": "x"}]},
        "messages.0.role: Input should be 'user' or 'assistant'",
    ),
    (
        {"messages": [{"role": "user", "content": ""}]},
        "messages.0: all messages must have non-empty content",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
        "messages.0.content.0.type: image is not supported by this model in a message of the user",
    ),
    (
        {"messages": [USER, {"role": "assistant", "content": [USE]}]},
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: "
        "toolu_1. Each `tool_use` block must have a corresponding `tool_result` block in the next "
        "message.",
    ),
    (
        {"messages": [{"role": "user", "content": [RESULT]}]},
        "messages.0.content.0: unexpected `tool_use_id` found in `tool_result` blocks: toolu_1. "
        "Each `tool_result` block must have a corresponding `tool_use` block in the previous "
        "message.",
    ),
    (
        {"tools": [{**TOOL, "name": f"t{i}"} for i in range(33)]},
        "tools: List should have at most 32 items after validation, not 33",
    ),
    ({"tools": [TOOL, TOOL]}, "tools: Tool names must be unique."),
    (
        {"tools": [{**TOOL, "name": "a b"}]},
        "tools.0.custom.name: String should match pattern '^[A-Za-z0-9_-]{1,64}$'",
    ),
    (
        {"tools": [{**TOOL, "input_schema": {}}]},
        "tools.0.custom.input_schema.type: Input should be 'object'",
    ),
    (
        {"tools": [{**TOOL, "input_schema": {**SCHEMA, "required": "city"}}]},
        'tools.0.custom.input_schema: JSON schema is invalid - the "required" keyword must be a '
        "list of strings",
    ),
    (
        {"tool_choice": {"type": "any"}},
        "tool_choice may only be specified while providing tools.",
    ),
    (
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "x"}},
        "tool_choice: Tool 'x' not found in provided tools",
    ),
    (
        {"stop_sequences": ["x"] * 101},
        "stop_sequences: List should have at most 100 items after validation, not 101",
    ),
    (
        {"stop_sequences": [" "]},
        "stop_sequences: each stop sequence must contain non-whitespace",
    ),
    (
        {"messages": [{"role": "user", "content": "," * 210_000}]},
        "Input is too long for requested model.",
    ),
]


@pytest.mark.parametrize(("fields", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_body_is_a_400_in_the_words_of_claude(
    workspace: httpx.Client, fields: Json, message: str
) -> None:
    body = {"model": MODEL, "max_tokens": 9, "messages": [USER], **fields}
    answer = workspace.post(f"/serving-endpoints{PATH}", json=body)
    told = json.dumps({"message": message}, separators=(",", ":"))
    assert (answer.status_code, answer.json()) == (
        400,
        {"error_code": "BAD_REQUEST", "message": told},
    )


def test_schemas_of_tools_are_not_held_to_the_subset_of_chat(claude: Anthropic) -> None:
    """As Claude Code sends them; arguments follow what of it is in the subset."""
    properties: Json = {
        "city": {"type": "string", "minLength": 1, "pattern": "^B"},
        "days": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]},
        **{f"k{i}": {"type": "boolean"} for i in range(20)},
    }
    schema = {"type": "object", "properties": properties, "additionalProperties": True}
    tool: Any = {**TOOL, "input_schema": {**schema, "required": ["city"]}}
    choice: Any = {"type": "tool", "name": TOOL["name"]}
    user: Any = USER
    message = claude.messages.create(
        model=MODEL, max_tokens=500, messages=[user], tools=[tool], tool_choice=choice
    )
    (use,) = [block for block in message.content if block.type == "tool_use"]
    given: Any = use.input
    assert isinstance(given["city"], str)


def test_anthropic_client_sees_the_status(claude: Anthropic, workspace: httpx.Client) -> None:
    with pytest.raises(BadRequestError) as refused:
        claude.messages.create(model=MODEL, max_tokens=9, messages=[])
    assert refused.value.body == {
        "error_code": "BAD_REQUEST",
        "message": '{"message":"messages: at least one message is required"}',
    }
    reply = {"error": {"status": 500, "message": "broken"}}
    assert workspace.post("/_emulator/replies", json=reply).status_code == 200
    with pytest.raises(InternalServerError, match="broken"):
        claude.messages.create(
            model=MODEL, max_tokens=9, messages=[{"role": "user", "content": "x"}]
        )


def test_only_claude_has_it(workspace: httpx.Client) -> None:
    body = {"model": "databricks-gpt-5", "max_tokens": 9, "messages": [USER]}
    answer = workspace.post(f"/serving-endpoints{PATH}", json=body)
    message = 'Bad request: endpoint "databricks-gpt-5" does not serve anthropic/v1/messages\n'
    assert (answer.status_code, answer.json()) == (
        400,
        {"error_code": "BAD_REQUEST", "message": message},
    )


def test_key_of_anthropic_is_no_credential(emulator: Emulator) -> None:
    answer = httpx.post(
        f"{emulator.url}/serving-endpoints{PATH}", json={}, headers={"x-api-key": "sk"}
    )
    assert (answer.status_code, answer.json()["error_code"]) == (401, 401)
