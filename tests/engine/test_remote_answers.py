"""What the remote engine asks for, and what it makes of the answers of a server of few words."""

import asyncio
import json
from dataclasses import replace

import pytest
from tests.generated import chunks_of, text_of
from tests.remote_servers import GREEDY, OK, TerseServer, event, started

from servemu_engine.base import (
    Chunk,
    GenerateRequest,
    JsonAnswer,
    PreparedRequest,
    Sampling,
    Tool,
    ToolCallDelta,
    ToolUse,
)
from servemu_engine.remote import RemoteEngine, RemoteServer

pytestmark = pytest.mark.anyio


async def test_first_listed_model_its_context_and_its_tokenizer_are_used(
    terse: TerseServer,
) -> None:
    terse.reply = (200, OK, event(delta={"content": "\u2028"}, finish_reason="eos"))
    async with started(RemoteEngine(RemoteServer(terse.url), "stand-in")) as engine:
        assert (engine.info.architecture, engine.info.context_length) == ("m", 64)
        prepared: PreparedRequest = engine.prepare(GREEDY)
        assert 9 < prepared.num_prompt_tokens < 64
        chunks = await chunks_of(engine, GREEDY)
    assert chunks == [Chunk(0, "\u2028", 1), Chunk(0, "", 0, finish_reason="stop")]
    [asked] = terse.asked
    assert (asked["model"], asked["stream_options"]) == ("m", {"include_usage": True})


async def test_server_that_knows_no_n_is_asked_for_one_answer_after_the_other(
    terse: TerseServer,
) -> None:
    terse.reply = (200, OK, event(delta={"content": "Hi"}, finish_reason="stop"))
    request = replace(GREEDY, n=3, sampling=Sampling(seed=7))
    async with started(RemoteEngine(RemoteServer(terse.url), "m")) as engine:
        chunks = await chunks_of(engine, request)
    assert [(c.index, c.text, c.finish_reason) for c in chunks] == [
        (index, *said) for index in range(3) for said in (("Hi", None), ("", "stop"))
    ]
    assert [(body.get("n"), body["seed"]) for body in terse.asked] == [(3, 7), (2, 8), (None, 9)]


async def test_tools_and_json_schema_go_along_and_calls_come_back(terse: TerseServer) -> None:
    weather = {"name": "weather", "description": "Of a city.", "parameters": {"type": "object"}}
    begin = {"index": 0, "id": "call_1", "type": "function"}
    deltas = [
        {**begin, "function": {"name": "weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"city": "Paris"}'}},
    ]
    terse.models = (200, {}, b'{"data": [{"id": "m"}]}')
    called = b"".join(event(delta={"tool_calls": [delta]}) for delta in deltas)
    terse.reply = (200, OK, called + event(delta={}, finish_reason="tool_calls"))
    tools = ToolUse((Tool("weather", "Of a city.", {"type": "object"}),), "required")
    answer = JsonAnswer({"type": "object"})
    request = replace(GREEDY, tool_use=tools, json_answer=answer)
    async with started(RemoteEngine(RemoteServer(terse.url), "m")) as engine:
        chunks = await chunks_of(engine, request)
    [asked] = terse.asked
    assert asked["tools"] == [{"type": "function", "function": weather}]
    assert asked["tool_choice"] == "required"
    assert asked["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": {"type": "object"}},
    }
    assert [delta for chunk in chunks for delta in chunk.tool_calls] == [
        ToolCallDelta(0, id="call_1", name="weather"),
        ToolCallDelta(0, arguments='{"city": "Paris"}'),
    ]
    assert chunks[-1].finish_reason == "tool_calls"


async def test_calls_that_all_have_number_0_are_told_apart_by_their_ids(terse: TerseServer) -> None:
    """As Ollama sends them: whole, and with `stop` at the end."""
    calls = [
        {"index": 0, "id": f"call_{n}", "function": {"name": "f", "arguments": f"[{n}]"}}
        for n in (1, 2)
    ]
    said = event(delta={"tool_calls": calls}) + event(delta={}, finish_reason="stop")
    terse.reply = (200, OK, said)
    async with started(RemoteEngine(RemoteServer(terse.url), "m")) as engine:
        chunks = await chunks_of(engine, GREEDY)
    assert [delta for chunk in chunks for delta in chunk.tool_calls] == [
        ToolCallDelta(0, "[1]", "call_1", "f"),
        ToolCallDelta(1, "[2]", "call_2", "f"),
    ]
    assert chunks[-1].finish_reason == "tool_calls"


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
async def test_thoughts_count_as_tokens_and_are_not_shown(terse: TerseServer, field: str) -> None:
    said = event(delta={field: "Hm", "content": ""}) + event(delta={"content": "Hi"})
    terse.reply = (200, OK, said + event(delta={}, finish_reason="stop"))
    async with started(RemoteEngine(RemoteServer(terse.url), "m")) as engine:
        chunks = await chunks_of(engine, GREEDY)
    assert [(c.text, c.num_tokens) for c in chunks] == [("", 1), ("Hi", 1), ("", 0)]


async def test_logprobs_of_completions_are_asked_for_and_read(terse: TerseServer) -> None:
    told = {
        "tokens": ["Hi", "!"],
        "token_logprobs": [-0.5, -1.0],
        "top_logprobs": [{"Hi": -0.5, "Yo": -2.0}, None],
    }
    terse.reply = (200, OK, event(text="Hi!", logprobs=told, finish_reason="stop"))
    sampling = Sampling(logprobs=True, top_logprobs=2)
    request = GenerateRequest(prompt="Say", use_chat_template=False, sampling=sampling)
    async with started(RemoteEngine(RemoteServer(terse.url), "m")) as engine:
        first, _ = await chunks_of(engine, request)
    assert [(t.text, t.logprob, [(o.text, o.logprob) for o in t.top]) for t in first.logprobs] == [
        ("Hi", -0.5, [("Hi", -0.5), ("Yo", -2.0)]),
        ("!", -1.0, []),
    ]
    assert (first.num_tokens, terse.asked[0]["logprobs"]) == (2, 2)


@pytest.mark.parametrize("usage", [None, {"completion_tokens": "many"}, [], {}])
async def test_answer_without_a_usable_usage_is_counted_by_its_chunks(
    terse: TerseServer, usage: object
) -> None:
    end = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
    said = event(delta={"content": "a"}) + event(delta={"content": "b"}, finish_reason="stop")
    terse.reply = (200, OK, said + end)
    async with started(RemoteEngine(RemoteServer(terse.url), "m")) as engine:
        chunks = await chunks_of(engine, GREEDY)
    assert sum(c.num_tokens for c in chunks) == 2
    assert chunks[-1].num_prompt_tokens is None


async def test_stop_string_that_the_server_sends_is_cut_off(terse: TerseServer) -> None:
    said = b"".join(event(delta={"content": text}) for text in ("one", " tw", "o th", "ree"))
    terse.reply = (200, OK, said + event(delta={}, finish_reason="stop"))
    async with started(RemoteEngine(RemoteServer(terse.url), "m")) as engine:
        cut = await chunks_of(engine, replace(GREEDY, sampling=Sampling(stop=(" two",))))
        whole = await chunks_of(engine, replace(GREEDY, sampling=Sampling(stop=("reef",))))
    assert (text_of(cut), cut[-1].finish_reason) == ("one", "stop")
    assert (text_of(whole), whole[-1].finish_reason) == ("one two three", "stop")


async def test_leaving_closes_the_connection(terse: TerseServer) -> None:
    terse.endless = True
    async with started(RemoteEngine(RemoteServer(terse.url), "m")) as engine:
        async with engine.submit(engine.prepare(GREEDY)) as generation:
            first = await anext(aiter(generation))
        assert first == Chunk(0, "more ", 1)
        assert await asyncio.to_thread(terse.left.wait, 10)
