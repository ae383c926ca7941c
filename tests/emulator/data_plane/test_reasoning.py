"""Reasoning families: which fields they take, and content as a list."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

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
        ("databricks-gpt-5", {"reasoning_effort": "minimal"}, False),
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
