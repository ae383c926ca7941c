"""Answers written beforehand: said token by token, and cut like any other."""

from dataclasses import replace

import pytest
from tests.generated import text_of

from servemu_engine.base import Chunk, GenerateRequest, PreparedRequest, Sampling, ToolCall
from servemu_engine.scripted import Script, scripted

pytestmark = pytest.mark.anyio

TEXT = "The capital of France is Paris."
CALL = ToolCall("call_1", "weather", '{"city": "Paris"}')


def prepared(max_tokens: int = 100, n: int = 1, **sampling: object) -> PreparedRequest:
    request = GenerateRequest(prompt="Where?", sampling=Sampling(**sampling), n=n)  # type: ignore[arg-type]
    return PreparedRequest(request, (1, 2), 2, max_tokens)


async def said(script: Script, asked: PreparedRequest) -> list[Chunk]:
    return [chunk async for chunk in scripted(asked, script)]


def calls_of(chunks: list[Chunk]) -> list[tuple[int, str, str, str]]:
    deltas = [delta for chunk in chunks for delta in chunk.tool_calls]
    return [(d.index, d.id, d.name, d.arguments) for d in deltas]


async def test_text_comes_one_token_a_chunk_and_stops() -> None:
    chunks = await said(Script(TEXT), prepared())
    assert [c.text for c in chunks] == ["The", " capital", " of", " France", " is", " Paris", "."]
    assert [c.num_tokens for c in chunks] == [1] * 7
    assert [c.finish_reason for c in chunks] == [None] * 6 + ["stop"]


async def test_finish_reason_may_be_given() -> None:
    chunks = await said(Script(TEXT, finish_reason="length"), prepared())
    assert (text_of(chunks), chunks[-1].finish_reason) == (TEXT, "length")


@pytest.mark.parametrize(
    ("asked", "text", "reason"),
    [
        (prepared(max_tokens=3), "The capital of", "length"),
        (prepared(max_tokens=7), TEXT, "stop"),
        (prepared(stop=(" Par",)), "The capital of France is", "stop"),
    ],
)
async def test_request_cuts_the_script(asked: PreparedRequest, text: str, reason: str) -> None:
    chunks = await said(Script(TEXT), asked)
    assert (text_of(chunks), chunks[-1].finish_reason) == (text, reason)


@pytest.mark.parametrize("asked", [prepared(max_tokens=3), prepared(stop=(" of",))])
async def test_text_that_was_cut_is_followed_by_no_call(asked: PreparedRequest) -> None:
    chunks = await said(Script(TEXT, (CALL,)), asked)
    assert (calls_of(chunks), chunks[-1].finish_reason in ("length", "stop")) == ([], True)


async def test_tool_calls_follow_the_text_with_name_first_and_arguments_in_pieces() -> None:
    chunks = await said(Script("Let me look.", (CALL, replace(CALL, id="b"))), prepared())
    assert text_of(chunks) == "Let me look."
    calls = calls_of(chunks)
    assert [call[:3] for call in calls if call[2]] == [
        (0, "call_1", "weather"),
        (1, "b", "weather"),
    ]
    for number in range(2):
        assert "".join(c[3] for c in calls if c[0] == number) == CALL.arguments
    assert [c.finish_reason for c in chunks if c.finish_reason] == ["tool_calls"]


async def test_tool_call_without_text_ends_with_tool_calls() -> None:
    chunks = await said(Script(tool_calls=(CALL,)), prepared())
    assert (text_of(chunks), chunks[-1]) == ("", Chunk(0, "", 0, finish_reason="tool_calls"))
    assert sum(c.num_tokens for c in chunks) == len(calls_of(chunks))


async def test_tool_call_is_cut_by_max_tokens() -> None:
    chunks = await said(Script(tool_calls=(CALL,)), prepared(max_tokens=3))
    assert (len(calls_of(chunks)), chunks[-1].finish_reason) == (3, "length")


async def test_call_without_an_id_gets_the_same_one_each_time() -> None:
    script = Script(tool_calls=(replace(CALL, id=""),))
    first, again = await said(script, prepared()), await said(script, prepared())
    assert first == again
    assert calls_of(first)[0][1].startswith("call_")


async def test_empty_script_answers_nothing() -> None:
    assert await said(Script(), prepared()) == [Chunk(0, "", 0, finish_reason="stop")]


async def test_each_of_n_answers_says_the_script() -> None:
    chunks = await said(Script(TEXT), prepared(n=2))
    for index in range(2):
        assert text_of(chunks, index) == TEXT
