"""Scripted replies as real clients see them: the openai client, and `servemu reply`."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from openai import APIStatusError, OpenAI
from openai.types.chat import ChatCompletionMessageFunctionToolCall
from typer.testing import CliRunner, Result

from servemu.cli.commands import app
from servemu.testing import Emulator

Json = dict[str, Any]
CHAT = "databricks-meta-llama-3-3-70b-instruct"
QUESTION: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
CALL = {"name": "weather", "arguments": '{"city": "Paris", "unit": "C"}'}


@pytest.fixture
def chat(emulator: Emulator, token: str) -> Iterator[OpenAI]:
    """In a workspace of its own, on the synthetic engine."""
    with OpenAI(
        base_url=f"{emulator.url}/serving-endpoints", api_key=token, max_retries=0
    ) as client:
        yield client


@pytest.fixture
def reply(emulator: Emulator, token: str) -> Callable[..., Result]:
    """Runs `servemu reply …` in that workspace."""

    def reply(*arguments: str) -> Result:
        command = ["reply", *arguments, "--url", emulator.url, "--token", token]
        return CliRunner().invoke(app, command, env={"COLUMNS": "200"})

    return reply


@pytest.fixture
def add(
    emulator: Emulator, token: str, connect: Callable[..., httpx.Client]
) -> Callable[..., Json]:
    def add(**fields: object) -> Json:
        with connect(emulator.url, token) as client:
            answer = client.post("/_emulator/replies", json=fields)
        assert answer.status_code == 200, answer.text
        body: Json = answer.json()
        return body

    return add


def test_tool_call_reaches_the_client(chat: OpenAI, add: Callable[..., Json]) -> None:
    add(text="Let me look.", tool_calls=[CALL, {**CALL, "id": "call_2"}])
    answer = chat.chat.completions.create(model=CHAT, messages=QUESTION, tools=TOOLS)
    [choice] = answer.choices
    assert (choice.message.content, choice.finish_reason) == ("Let me look.", "tool_calls")
    made = choice.message.tool_calls or []
    assert all(isinstance(call, ChatCompletionMessageFunctionToolCall) for call in made)
    assert [call.model_dump()["function"] for call in made] == [CALL, CALL]
    assert (made[0].id.startswith("call_"), made[1].id) == (True, "call_2")


def test_streamed_tool_call_adds_up_to_the_same(chat: OpenAI, add: Callable[..., Json]) -> None:
    add(tool_calls=[{**CALL, "id": "call_1"}])
    names, ids, arguments, reasons = [], [], "", []
    for chunk in chat.chat.completions.create(
        model=CHAT, messages=QUESTION, tools=TOOLS, stream=True
    ):
        for choice in chunk.choices:
            reasons.append(choice.finish_reason)
            for delta in choice.delta.tool_calls or []:
                assert delta.function is not None
                names.append(delta.function.name)
                ids.append(delta.id)
                arguments += delta.function.arguments or ""
    assert (names[0], ids[0], arguments) == ("weather", "call_1", CALL["arguments"])
    assert not any(names[1:]) and not any(ids[1:])
    assert [reason for reason in reasons if reason] == ["tool_calls"]


def test_reply_added_by_the_shell_is_said_listed_and_removed(
    chat: OpenAI, reply: Callable[..., Result]
) -> None:
    added = reply("add", "--text", "Sunny.", "--message", "weather", "--times", "1")
    reply_id = added.stdout.strip()
    assert (added.exit_code, reply_id.startswith("reply-")) == (0, True)
    said = [
        chat.chat.completions.create(model=CHAT, messages=QUESTION).choices[0].message.content
        for _ in range(2)
    ]
    assert [text == "Sunny." for text in said] == [True, False]
    [shown] = json.loads(reply("list", "--json").stdout)["replies"]
    assert (shown["id"], shown["used"], shown["remaining"]) == (reply_id, 1, 0)
    assert "Sunny." in reply("list").stdout
    assert reply("remove", reply_id).exit_code == 0
    gone = reply("remove", reply_id)
    assert (gone.exit_code, gone.stderr.count("\n")) == (1, 1)
    assert f"Scripted reply with id '{reply_id}' does not exist." in gone.stderr


def test_error_added_by_the_shell_is_the_clients_exception(
    chat: OpenAI, reply: Callable[..., Result]
) -> None:
    reply("add", "--status", "418", "--error-code", "TEAPOT", "--error-message", "Short.")
    with pytest.raises(APIStatusError) as raised:
        chat.chat.completions.create(model=CHAT, messages=QUESTION)
    assert (raised.value.status_code, raised.value.body) == (
        418,
        {"error_code": "TEAPOT", "message": "Short."},
    )
    assert reply("remove", "--all").exit_code == 0
    assert json.loads(reply("list", "--json").stdout) == {"replies": []}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("add",), 1, "one of text, tool_calls and error must be given"),
        (("add", "--text", "a", "--pattern", "("), 1, "no regular expression"),
        (("remove",), 2, "give either the id of a reply or --all"),
        (("remove", "a", "--all"), 2, "give either the id of a reply or --all"),
    ],
    ids=str,
)
def test_bad_command_is_refused(
    reply: Callable[..., Result], arguments: tuple[str, ...], code: int, message: str
) -> None:
    refused = reply(*arguments)
    assert (refused.exit_code, refused.stdout) == (code, "")
    assert message in refused.stderr
