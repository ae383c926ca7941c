"""Reasoning families: which fields they take, and content as a list."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from servemu.schemas.chat import ChatRequest
from servemu.schemas.decoding import decode
from servemu.schemas.reasoning import dialect_of

MESSAGES = [{"role": "user", "content": "Say json."}]
OSS = "databricks-gpt-oss-20b"
CLAUDE = "databricks-claude-haiku-4-5"
LLAMA = "databricks-meta-llama-3-1-8b-instruct"
THINK = {"thinking": {"type": "enabled", "budget_tokens": 2000}}
REASONING = {"type": "reasoning", "summary": [{"type": "summary_text", "text": ""}]}


def _post(workspace: httpx.Client, name: str, **fields: Any) -> httpx.Response:
    body = {"messages": MESSAGES, "max_tokens": 4, "temperature": 0, **fields}
    return workspace.post(f"/serving-endpoints/{name}/invocations", json=body)


@pytest.mark.parametrize(
    ("name", "fields", "is_list"),
    [
        (OSS, {}, True),
        (OSS, {"reasoning_effort": "low"}, True),
        (CLAUDE, {}, False),
        (CLAUDE, {"thinking": {"type": "disabled"}}, False),
        (CLAUDE, THINK, True),
        ("databricks-gpt-5", {"reasoning_effort": "minimal", "temperature": 1}, False),
        (LLAMA, {}, False),
    ],
)
def test_content_is_a_list_where_the_family_reasons(
    workspace: httpx.Client, name: str, fields: dict[str, Any], is_list: bool
) -> None:
    content = _post(workspace, name, **fields).json()["choices"][0]["message"]["content"]
    if not is_list:
        assert isinstance(content, str)
        return
    reasoning, text = content
    assert reasoning == REASONING
    assert text == {"type": "text", "text": text["text"]}
    assert text["text"]


def test_streamed_content_is_a_list_of_one_item(workspace: httpx.Client) -> None:
    lines = _post(workspace, OSS, stream=True).text.split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    deltas = [event["choices"][0]["delta"] for event in events]
    assert deltas[0] == {"role": "assistant", "content": [REASONING]}
    assert [delta["content"][0]["type"] for delta in deltas[1:-1]] == ["text"] * 4
    assert deltas[-1] == {"content": ""}


@pytest.mark.parametrize(
    ("name", "fields", "error_code", "message"),
    [
        (LLAMA, THINK, "BAD_REQUEST", 'Bad request: json: unknown field "thinking"\n'),
        (
            LLAMA,
            {"reasoning_effort": "low"},
            "BAD_REQUEST",
            'Bad request: json: unknown field "reasoning_effort"\n',
        ),
        (
            OSS,
            {"reasoning_effort": "huge"},
            "BAD_REQUEST",
            "Bad request: reasoning_effort must be one of minimal, low, medium, high\n",
        ),
        (
            OSS,
            {"stop": ["x"]},
            "BAD_REQUEST",
            'Unsupported parameter: "stop" is not supported with this model.',
        ),
        (
            "databricks-gpt-5",
            {"temperature": 0},
            "BAD_REQUEST",
            "Unsupported value: 'temperature' does not support 0.0 with this model. Only the "
            "default (1) value is supported.",
        ),
        (
            CLAUDE,
            {"tools": [{"type": "function", "function": {"name": "f", "strict": False}}]},
            "BAD_REQUEST",
            '{"message":"tools.0.custom.strict: Extra inputs are not permitted"}',
        ),
        (
            CLAUDE,
            {"messages": [{"role": "user", "content": "," * 210_000}]},
            "BAD_REQUEST",
            '{"message":"Input is too long for requested model."}',
        ),
        (
            LLAMA,
            {"messages": [{"role": "assistant", "content": [REASONING]}]},
            "BAD_REQUEST",
            "Bad request: content of type reasoning is not supported by this model\n",
        ),
        (
            LLAMA,
            {"service_tier": "flex"},
            "BAD_REQUEST",
            "Bad request: service_tier must be 'default' or 'priority'\n",
        ),
        (
            CLAUDE,
            {"response_format": {"type": "json_object"}},
            "INVALID_PARAMETER_VALUE",
            "INVALID_PARAMETER_VALUE: Response format type json_object is not supported for this "
            "model.",
        ),
    ],
)
def test_field_that_the_family_does_not_take_is_a_400(
    workspace: httpx.Client, name: str, fields: dict[str, Any], error_code: str, message: str
) -> None:
    response = _post(workspace, name, **fields)
    assert response.status_code == 400
    assert response.json() == {"error_code": error_code, "message": message}


@pytest.mark.parametrize("name", [OSS, CLAUDE])
def test_reasoning_of_an_earlier_answer_may_come_back(workspace: httpx.Client, name: str) -> None:
    answered = {"role": "assistant", "content": [REASONING, {"type": "text", "text": "{}"}]}
    response = _post(workspace, name, messages=[*MESSAGES, answered, *MESSAGES])
    assert response.status_code == 200


@pytest.mark.parametrize("tier", ["default", "priority"])
def test_service_tier_is_taken(workspace: httpx.Client, tier: str) -> None:
    assert _post(workspace, LLAMA, service_tier=tier).status_code == 200


def test_claude_ends_after_a_thousand_tokens_unless_told_otherwise() -> None:
    body = {"messages": MESSAGES, "temperature": 0}
    wanted = decode(ChatRequest, body)
    claude, llama = (dialect_of(family) for family in ("claude", "llama"))
    assert wanted.generate_request(200_000, claude).sampling.max_tokens == 1000
    assert wanted.generate_request(200_000, llama).sampling.max_tokens is None
    asked = decode(ChatRequest, {**body, "max_tokens": 9000})
    assert asked.generate_request(200_000, claude).sampling.max_tokens == 9000
