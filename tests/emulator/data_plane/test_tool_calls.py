"""Tools, JSON answers and bad bodies over HTTP, with the words of each refusal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import jsonschema
import pytest
from pydantic import BaseModel, ConfigDict

from servemu.serving import Task
from servemu_engine.base import Chunk, ToolCallDelta
from servemu_engine.synthetic import SyntheticEngine

if TYPE_CHECKING:
    from openai import OpenAI
    from tests.emulator.data_plane.conftest import Plane, ScriptedEngine

CHAT: Task = "llm/v1/chat"
USER: dict[str, Any] = {"role": "user", "content": "What is the weather in Bern, as json?"}
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "get_weather", "description": "of a city", "parameters": PARAMETERS},
}
CALL: dict[str, Any] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": "{}"},
}
RESULT = {"role": "tool", "content": "sunny", "tool_call_id": "call_1"}
CALLED = [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}]
DELTAS = (
    ToolCallDelta(0, id="call_1", name="get_weather"),
    ToolCallDelta(0, '{"city": '),
    ToolCallDelta(0, '"Bern"}'),
)
SCRIPT = [
    *(Chunk(0, "", 1, tool_calls=(delta,)) for delta in DELTAS),
    Chunk(0, "", 1, finish_reason="tool_calls"),
]


def _tool(**function: Any) -> dict[str, Any]:
    return {**TOOL, "function": {**TOOL["function"], **function}}


def _schema(schema: Any) -> dict[str, Any]:
    answer = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return {"response_format": answer}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def test_whole_answer_with_a_call(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine]
) -> None:
    plane.add("e", CHAT, scripted(SCRIPT))
    response = http.post("/e/invocations", json={"messages": [USER], "tools": [TOOL]})
    function = {"name": "get_weather", "arguments": '{"city": "Bern"}'}
    call = {"id": "call_1", "type": "function", "function": function}
    assert response.json()["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": None, "tool_calls": [call]},
            "finish_reason": "tool_calls",
            "logprobs": None,
        }
    ]


def test_streamed_answer_with_a_call(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine]
) -> None:
    plane.add("e", CHAT, scripted(SCRIPT))
    body = {"messages": [USER], "tools": [TOOL], "stream": True}
    lines = http.post("/e/invocations", json=body).text.split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    choices = [event["choices"][0] for event in events]
    first = {
        "index": 0,
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": ""},
    }
    assert [(choice["delta"], choice["finish_reason"]) for choice in choices] == [
        ({"role": "assistant", "content": None, "tool_calls": [first]}, None),
        ({"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]}, None),
        ({"tool_calls": [{"index": 0, "function": {"arguments": '"Bern"}'}}]}, None),
        ({}, "tool_calls"),
    ]
    assert [event["usage"]["completion_tokens"] for event in events] == [1, 2, 3, 4]


def test_named_tool_is_called_and_no_other_in_each_of_several_streamed_answers(
    plane: Plane, http: httpx.Client, synthetic: SyntheticEngine
) -> None:
    plane.add("e", CHAT, synthetic)
    clock = _tool(name="clock", description="the time")
    named = {"type": "function", "function": {"name": "clock"}}
    body = {"messages": [USER], "tools": [TOOL, clock], "tool_choice": named, "n": 2}
    lines = http.post("/e/invocations", json={**body, "stream": True}).text.split("\n\n")
    choices = [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines[:-2]]
    calls: list[dict[str, Any]] = []
    for index in range(2):
        own = [choice for choice in choices if choice["index"] == index]
        first, *pieces = [delta for c in own for delta in c["delta"].get("tool_calls", ())]
        assert own[0]["delta"]["role"] == "assistant" and own[0]["delta"]["content"] is None
        assert (first["function"]["name"], first["function"]["arguments"]) == ("clock", "")
        assert all(piece.keys() == {"index", "function"} for piece in pieces)
        arguments = "".join(piece["function"]["arguments"] for piece in pieces)
        jsonschema.validate(json.loads(arguments), PARAMETERS)
        assert (own[-1]["delta"], own[-1]["finish_reason"]) == ({}, "tool_calls")
        calls.append(first)
    assert calls[0]["id"] != calls[1]["id"]


def test_openai_client_calls_answers_and_streams(
    plane: Plane, sdk: OpenAI, synthetic: SyntheticEngine
) -> None:
    plane.add("e", CHAT, synthetic)
    create: Any = sdk.chat.completions.create
    asked = {"model": "e", "messages": [USER], "tools": [TOOL], "temperature": 0}
    choice = create(**asked, tool_choice="required").choices[0]
    (call,) = choice.message.tool_calls
    assert (choice.finish_reason, call.function.name) == ("tool_calls", "get_weather")
    jsonschema.validate(json.loads(call.function.arguments), PARAMETERS)
    stream_call: Any = sdk.chat.completions.stream
    with stream_call(**asked) as stream:
        streamed: Any = stream.get_final_completion().choices[0].message.tool_calls
    assert streamed[0].function.arguments == call.function.arguments
    result = {"role": "tool", "content": "sunny", "tool_call_id": call.id}
    after = create(**{**asked, "messages": [USER, choice.message.to_dict(), result]})
    assert after.choices[0].finish_reason == "stop"
    assert after.choices[0].message.content


class Forecast(BaseModel):
    """What the openai client makes a strict schema of."""

    model_config = ConfigDict(extra="forbid")
    city: str
    days: list[int]
    is_sunny: bool


def test_openai_client_parses_a_pydantic_answer(
    plane: Plane, sdk: OpenAI, synthetic: SyntheticEngine
) -> None:
    plane.add("e", CHAT, synthetic)
    parse: Any = sdk.chat.completions.parse
    message = parse(model="e", messages=[USER], response_format=Forecast).choices[0].message
    assert isinstance(message.parsed, Forecast)
    assert message.parsed.days


def test_json_object_is_an_object(
    plane: Plane, http: httpx.Client, synthetic: SyntheticEngine
) -> None:
    plane.add("e", CHAT, synthetic)
    body = {"messages": [USER], "response_format": {"type": "json_object"}}
    content = http.post("/e/invocations", json=body).json()["choices"][0]["message"]["content"]
    assert isinstance(json.loads(content), dict)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (_object(a={"type": "string", "pattern": "x"}), 'the "pattern" keyword is not supported'),
        ({"anyOf": [{"type": "string"}]}, 'the "anyOf" keyword is not supported'),
        ({"oneOf": []}, 'the "oneOf" keyword is not supported'),
        ({"allOf": []}, 'the "allOf" keyword is not supported'),
        ({"type": "array", "prefixItems": []}, 'the "prefixItems" keyword is not supported'),
        (_object(a={"$ref": "#/$defs/x"}), 'the "$ref" keyword is not supported'),
        (_object(a={"type": "number", "minimum": 0}), "number types do not support minimum"),
        (_object(a={"type": "integer", "minimum": 0}), "integer types do not support minimum"),
        ({"type": "array", "maxItems": 3}, "array types do not support maxItems"),
        (
            {"type": "object", "additionalProperties": True},
            'the "additionalProperties" keyword must be False or not specified',
        ),
        (
            {"type": ["string", "integer"]},
            'lists of types are not supported but [type, "null"]',
        ),
        (
            _object(**{f"k{i}": {"type": "null"} for i in range(65)}),
            "the schema has 65 keys, at most 64 are supported",
        ),
        (
            {"type": "object", "required": [f"k{i}" for i in range(65)]},
            "the schema has 65 keys, at most 64 are supported",
        ),
        (
            json.loads('{"items": ' * 16 + "{}" + "}" * 16),
            "the schema is nested more than 16 deep",
        ),
        ({"items": True}, "a schema must be an object"),
        ({"enum": []}, 'the "enum" keyword must be a list of 1 to 1000 values'),
        ({"minimum": 3}, 'the "minimum" keyword is not supported'),
        ({"items": {}, "maxItems": 3}, 'the "maxItems" keyword is not supported'),
        ({"enum": ["x" * 20_000]}, "its names and values have more than 20000 characters"),
        ({"const": ["x" * 20_000]}, "its names and values have more than 20000 characters"),
        (
            _object(**{"x" * 20_000: {"type": "null"}}),
            "its names and values have more than 20000 characters",
        ),
    ],
)
def test_schema_outside_of_the_subset_is_a_400(
    plane: Plane, http: httpx.Client, synthetic: SyntheticEngine, schema: Any, reason: str
) -> None:
    plane.add("e", CHAT, synthetic)
    response = http.post("/e/invocations", json={"messages": [USER], **_schema(schema)})
    message = f"Invalid JSON schema - {reason}\n"
    assert response.status_code == 400
    assert response.json() == {"error_code": "BAD_REQUEST", "message": message}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"messages": []}, "messages must be a non-empty list"),
        (
            {"messages": [{"role": "robot", "content": "x"}]},
            "messages.0.role must be one of system, user, assistant, tool",
        ),
        (
            {"messages": [USER, RESULT]},
            "messages.1 must follow the assistant message with its tool call",
        ),
        (
            {"messages": [*CALLED, USER, RESULT]},
            "messages.3 must follow the assistant message with its tool call",
        ),
        (
            {"messages": [*CALLED, RESULT, RESULT]},
            "messages.3 must follow the assistant message with its tool call",
        ),
        (
            {"messages": [{**USER, "tool_calls": [CALL]}]},
            "messages.0.tool_calls must come from the assistant",
        ),
        ({"n": 1000000}, "n must be less than or equal to 5"),
        ({"tools": [_tool(name=f"t{i}") for i in range(33)]}, "tools must have at most 32 items"),
        ({"tools": [TOOL, TOOL]}, "tools must have different names"),
        (
            {"tools": [_tool(name="a b")]},
            "tools.0.function.name must match ^[A-Za-z0-9_-]{1,64}$",
        ),
        ({"tools": [{**TOOL, "type": "retrieval"}]}, "tools.0.type must be function"),
        (
            {"tools": [_tool(parameters={"type": "string"})]},
            "tools.0.function.parameters must be of type object",
        ),
        ({"tool_choice": "required"}, "tool_choice must name one of the tools"),
        ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice must be none, auto, required or a "),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice must name one of the tools",
        ),
        ({"parallel_tool_calls": True}, 'json: unknown field "parallel_tool_calls"'),
        ({"response_format": {"type": "xml"}}, "response_format.type must be "),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema must be given for the type json_schema",
        ),
        (
            {"messages": [{"role": "user", "content": "," * 15_000}]},
            "prompt token count (15003) cannot exceed 1000. ",
        ),
        (
            {"messages": [{"role": "user", "content": "," * 50_000}]},
            "prompt token count (3125) cannot exceed 1000. ",  # at least: they are not counted
        ),
    ],
)
def test_bad_body_is_a_400_in_the_words_of_the_service(
    plane: Plane,
    http: httpx.Client,
    synthetic: SyntheticEngine,
    body: dict[str, Any],
    message: str,
) -> None:
    plane.add("e", CHAT, synthetic)
    response = http.post("/e/invocations", json={"messages": [USER], **body})
    assert response.status_code == 400
    assert response.json()["error_code"] == "BAD_REQUEST"
    assert response.json()["message"].startswith(f"Bad request: {message}")


@pytest.mark.parametrize(
    "body", [b'{"messages": [{"role": "user", "content": "\xff"}]}', b'{"temperature": NaN}']
)
def test_body_that_is_no_json_is_malformed(
    plane: Plane, http: httpx.Client, synthetic: SyntheticEngine, body: bytes
) -> None:
    plane.add("e", CHAT, synthetic)
    response = http.post("/e/invocations", content=body)
    assert (response.status_code, response.json()["error_code"]) == (400, "MALFORMED_REQUEST")


def test_prompt_of_a_million_tokens_is_a_400(workspace: httpx.Client) -> None:
    body = {"messages": [{"role": "user", "content": "," * 1_000_000}]}
    path = "/serving-endpoints/databricks-meta-llama-3-1-8b-instruct/invocations"
    response = workspace.post(path, json=body)
    assert (response.status_code, response.json()) == (
        400,
        {
            "error_code": "BAD_REQUEST",
            "message": "Bad request: prompt token count (1000003) cannot exceed 131072. "
            "Please reduce the length of your prompt.\n",
        },
    )
