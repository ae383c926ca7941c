"""The Responses API: bodies, typed events and refusals, with openai-python and without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import jsonschema
import pytest
from openai import BadRequestError, OpenAI
from pydantic import BaseModel, ConfigDict

from servemu_engine.base import Chunk, ToolCallDelta
from servemu_engine.errors import EngineDead

if TYPE_CHECKING:
    from tests.emulator.data_plane.conftest import Plane, ScriptedEngine

    from servemu.testing import Emulator

Json = dict[str, Any]

MODEL = "databricks-gpt-5"
PARAMETERS: Json = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL: Json = {
    "type": "function",
    "name": "get_weather",
    "description": "of a city",
    "parameters": PARAMETERS,
    "strict": True,
}
USAGE = {
    "input_tokens": 3,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 4,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 7,
}
PART = {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}
WHOLE: Json = {
    "object": "response",
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "model": "e-model",
    "previous_response_id": None,
    "store": False,
    "instructions": "Be kind.",
    "max_output_tokens": 9,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
    "usage": USAGE,
}
TWO_CALLS = [
    Chunk(0, "Well", 1),
    Chunk(0, "", 1, tool_calls=(ToolCallDelta(0, id="call_1", name="f"),)),
    Chunk(0, "", 1, tool_calls=(ToolCallDelta(0, '{"a":'),)),
    Chunk(0, "", 1, tool_calls=(ToolCallDelta(0, "1}"),)),
    Chunk(0, "", 1, tool_calls=(ToolCallDelta(1, "{}", id="call_2", name="g"),)),
    Chunk(0, "", 0, finish_reason="tool_calls"),
]
CALL: Json = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
OUTPUT: Json = {"type": "function_call_output", "call_id": "call_1", "output": "sunny"}


@pytest.fixture
def gpt(emulator: Emulator, workspace: httpx.Client) -> Iterator[OpenAI]:
    """openai-python in this test's workspace."""
    token = workspace.headers["Authorization"].removeprefix("Bearer ")
    url = f"{emulator.url}/serving-endpoints"
    with OpenAI(base_url=url, api_key=token, max_retries=0) as client:
        yield client


def events_of(text: str) -> list[Json]:
    """The events of a stream; each is named by its type, and none is [DONE]."""
    events = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def test_whole_response(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine], hello: list[Chunk]
) -> None:
    engine = scripted(hello)
    plane.add("e", "llm/v1/chat", engine)
    body = {"model": "e", "input": "hi", "instructions": "Be kind.", "max_output_tokens": 9}
    answer = http.post("/responses", json=body)
    assert answer.headers["served-model-name"] == "e-1"
    response = answer.json()
    unique = response["id"].removeprefix("resp_")
    message = {
        "type": "message",
        "id": f"msg_{unique}",
        "role": "assistant",
        "status": "completed",
        "content": [PART],
    }
    assert response == {
        **WHOLE,
        "id": f"resp_{unique}",
        "created_at": response["created_at"],
        "output": [message],
    }
    assert [(one.role, one.content) for one in engine.requests[0].messages] == [
        ("system", "Be kind."),
        ("user", "hi"),
    ]


def test_streamed_text_is_told_item_by_item(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine], hello: list[Chunk]
) -> None:
    plane.add("e", "llm/v1/chat", scripted(hello))
    answer = http.post("/responses", json={"model": "e", "input": "hi", "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["delta"] for event in events if "delta" in event] == ["He", "llo"]
    assert events[0]["response"]["usage"] is None
    assert events[-1]["response"]["usage"] == USAGE
    assert events[-1]["response"]["output"] == [events[-2]["item"]]


def test_text_and_calls_are_items_of_their_own(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine]
) -> None:
    plane.add("e", "llm/v1/chat", scripted(TWO_CALLS))
    body = {"model": "e", "input": "hi", "tools": [TOOL]}
    whole = http.post("/responses", json=body).json()
    shown = [(item["type"], item.get("name"), item.get("arguments")) for item in whole["output"]]
    assert shown == [
        ("message", None, None),
        ("function_call", "f", '{"a":1}'),
        ("function_call", "g", "{}"),
    ]
    events = events_of(http.post("/responses", json={**body, "stream": True}).text)
    kinds = [event["type"].removeprefix("response.") for event in events[9:]]
    assert kinds == [
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    streamed = events[-1]["response"]["output"]
    assert [(item["type"], item.get("arguments")) for item in streamed] == [
        (kind, arguments) for kind, _, arguments in shown
    ]


def test_response_that_was_cut_is_incomplete(gpt: OpenAI) -> None:
    response = gpt.responses.create(model=MODEL, input="Tell a story", max_output_tokens=5)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage is not None
    assert response.usage.output_tokens == 5


def test_openai_client_calls_answers_and_streams(gpt: OpenAI) -> None:
    create: Any = gpt.responses.create
    conversation: list[Any] = [{"role": "user", "content": "The weather in Bern?"}]
    asked = {"model": MODEL, "tools": [TOOL], "temperature": 0}
    first = create(**asked, input=conversation, tool_choice="required")
    (call,) = [item for item in first.output if item.type == "function_call"]
    jsonschema.validate(json.loads(call.arguments), PARAMETERS)
    conversation += first.output
    conversation.append({**OUTPUT, "call_id": call.call_id})
    second = create(**asked, input=conversation, tool_choice="none")
    assert second.status == "completed"
    with gpt.responses.stream(model=MODEL, input=conversation, temperature=0) as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text != ""


class Forecast(BaseModel):
    """What the client makes a strict schema of."""

    model_config = ConfigDict(extra="forbid")
    city: str
    days: list[int]


def test_openai_client_parses_a_pydantic_answer(gpt: OpenAI) -> None:
    response = gpt.responses.parse(model=MODEL, input="Bern, please", text_format=Forecast)
    assert isinstance(response.output_parsed, Forecast)


def test_json_object_is_an_object(gpt: OpenAI) -> None:
    text: Any = {"format": {"type": "json_object"}}
    response = gpt.responses.create(model=MODEL, input="Some json, please", text=text)
    assert isinstance(json.loads(response.output_text), dict)


def test_scripted_reply_journal_and_tokens_are_those_of_any_query(
    gpt: OpenAI, workspace: httpx.Client
) -> None:
    reply = {"match": {"message": "capital"}, "text": "Paris it is"}
    assert workspace.post("/_emulator/replies", json=reply).status_code == 200
    response = gpt.responses.create(model=MODEL, input="The capital of France?")
    assert response.output_text == "Paris it is"
    [entry] = workspace.get("/_emulator/requests?operation=invocations").json()["requests"]
    assert response.usage is not None
    assert (entry["endpoint"], entry["tokens_in"], entry["tokens_out"]) == (
        MODEL,
        response.usage.input_tokens,
        response.usage.output_tokens,
    )


def test_failure_on_the_way_is_an_error_event(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine], hello: list[Chunk]
) -> None:
    plane.add("e", "llm/v1/chat", scripted(hello[:1], failure=EngineDead("gone")))
    answer = http.post("/responses", json={"model": "e", "input": "hi", "stream": True})
    last = events_of(answer.text)[-1]
    assert (last["type"], last["code"]) == ("error", "TEMPORARILY_UNAVAILABLE")


def test_client_that_leaves_ends_the_generation(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine], hello: list[Chunk]
) -> None:
    engine = scripted(hello[:1], hangs=True)
    plane.add("e", "llm/v1/chat", engine)
    with plane.post_without_waiting("/responses", {"model": "e", "input": "hi", "stream": True}):
        assert engine.entered.wait(10)
    assert engine.left.wait(10)


BAD: list[tuple[Json, str]] = [
    ({"store": True}, 'json: unknown field "store"'),
    ({"previous_response_id": "resp_1"}, 'json: unknown field "previous_response_id"'),
    ({"background": True}, 'json: unknown field "background"'),
    ({"service_tier": "auto"}, 'json: unknown field "service_tier"'),
    ({"temperature": 3}, "temperature must be less than or equal to 2"),
    ({"input": []}, "input must hold at least one message"),
    (
        {"input": [{"role": "robot", "content": "x"}]},
        "Invalid value: 'robot'. Supported values are: 'assistant', 'system', 'developer', and "
        "'user'.",
    ),
    ({"input": [CALL]}, "No tool output found for function call call_1."),
    (
        {"input": [OUTPUT]},
        "No tool call found for function call output with call_id call_1.",
    ),
    (
        {"input": [{**CALL, "id": "x" * 65}, OUTPUT]},
        "Invalid 'input[0].id': string too long. Expected a string with maximum length 64, but "
        "got a string with length 65 instead.",
    ),
    (
        {"input": [{**CALL, "id": "msg_1"}, OUTPUT]},
        "Invalid 'input[0].id': 'msg_1'. Expected an ID that begins with 'fc'.",
    ),
    (
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        "input.0.type item_reference is not played by the emulator",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
        "input.0: input_image is not supported by this model",
    ),
    (
        {"tools": [{"type": "web_search"}]},
        "tools.0.type web_search is not played by the emulator",
    ),
    ({"tools": [{"type": "file_search"}]}, "tools.0.type must be function"),
    ({"tool_choice": "required"}, "tool_choice must name one of the tools"),
    (
        {"text": {"format": {"type": "json_object"}}},
        "Response input messages must contain the word 'json' in some form to use 'text.format' "
        "of type 'json_object'.",
    ),
    (
        {"input": "," * 280_000},
        "prompt token count (280003) cannot exceed 272000. Please reduce the length of your "
        "prompt.",
    ),
]


@pytest.mark.parametrize(("fields", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_body_is_a_400(workspace: httpx.Client, fields: Json, message: str) -> None:
    body = {"model": MODEL, "input": "hi", **fields}
    answer = workspace.post("/serving-endpoints/responses", json=body)
    told = {"error_code": "BAD_REQUEST", "message": f"Bad request: {message}\n"}
    assert (answer.status_code, answer.json()) == (400, told)


def test_schema_outside_of_the_subset_is_a_400(gpt: OpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "x"}}}
    text: Any = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
    with pytest.raises(BadRequestError, match='the "pattern" keyword is not supported'):
        gpt.responses.create(model=MODEL, input="hi", text=text)


def test_only_models_of_openai_have_it(workspace: httpx.Client) -> None:
    model = "databricks-meta-llama-3-3-70b-instruct"
    answer = workspace.post("/serving-endpoints/responses", json={"model": model, "input": "hi"})
    message = f'Bad request: endpoint "{model}" does not serve openai/v1/responses\n'
    assert (answer.status_code, answer.json()) == (
        400,
        {"error_code": "BAD_REQUEST", "message": message},
    )


def test_endpoint_that_does_not_exist_is_a_404(workspace: httpx.Client) -> None:
    body = {"model": "nobody", "input": "hi"}
    answer = workspace.post("/serving-endpoints/responses", json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (404, "ENDPOINT_NOT_FOUND")
