"""The remote engine against a second emulator, and against servers that fail, over real HTTP."""

import asyncio
import json
import math
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from servemu.testing import Emulator
from servemu_engine.base import (
    Chunk,
    EmbedRequest,
    GenerateRequest,
    JsonAnswer,
    Message,
    PreparedRequest,
    Sampling,
    Tool,
    ToolCallDelta,
    ToolUse,
)
from servemu_engine.errors import (
    EngineClosed,
    EngineDead,
    EngineError,
    InvalidPrompt,
    LoadFailed,
    PromptTooLong,
    RemoteFailed,
    RemoteOverloaded,
)
from servemu_engine.remote import RemoteEngine, RemoteServer
from servemu_engine.remote_vectors import fitted

pytestmark = pytest.mark.anyio

CHAT = "databricks-meta-llama-3-3-70b-instruct"
EMBEDDINGS = "databricks-gte-large-en"
QUESTION = (Message("user", "Why do lighthouses flash at night?"),)
GREEDY = GenerateRequest(messages=QUESTION, sampling=Sampling(temperature=0))


def engine_on(emulator: Emulator, model: str = CHAT) -> RemoteEngine:
    server = RemoteServer(f"{emulator.url}/serving-endpoints", key="emu.remote", model=model)
    return RemoteEngine(server, "stand-in")


@asynccontextmanager
async def started(engine: RemoteEngine) -> AsyncIterator[RemoteEngine]:
    await asyncio.to_thread(engine.start)
    try:
        yield engine
    finally:
        await asyncio.to_thread(engine.close)
        await asyncio.sleep(0)


async def run(engine: RemoteEngine, request: GenerateRequest = GREEDY) -> list[Chunk]:
    async with engine.submit(engine.prepare(request)) as generation:
        return [chunk async for chunk in generation]


def text_of(chunks: list[Chunk], index: int = 0) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.index == index)


async def test_answer_is_the_servers_token_by_token_with_its_own_counts(emulator: Emulator) -> None:
    async with started(engine_on(emulator)) as engine:
        chunks = await run(engine)
        assert (engine.info.kind, engine.info.architecture) == ("remote", CHAT)
    assert "lighthouses flash night" in text_of(chunks)
    assert [c.num_tokens for c in chunks] == [1] * (len(chunks) - 1) + [0]
    assert [c.finish_reason for c in chunks if c.finish_reason] == ["stop"]
    assert chunks[-1].num_prompt_tokens == 11


async def test_sampling_goes_along(emulator: Emulator) -> None:
    sampling = Sampling(temperature=1.0, max_tokens=5, logprobs=True, top_logprobs=2)
    request = replace(GREEDY, sampling=sampling, n=2)
    async with started(engine_on(emulator)) as engine:
        chunks = await run(engine, request)
        stopped = await run(engine, replace(GREEDY, sampling=replace(sampling, stop=(" ",))))
    assert {c.index: c.finish_reason for c in chunks if c.finish_reason} == {
        0: "length",
        1: "length",
    }
    assert sum(c.num_tokens for c in chunks) == 10
    said = [token for chunk in chunks for token in chunk.logprobs]
    assert len(said) == 10 and all(len(token.top) == 2 for token in said)
    assert " " not in text_of(stopped)


async def test_raw_prompt_goes_to_completions(emulator: Emulator) -> None:
    request = GenerateRequest(prompt="Once upon", use_chat_template=False)
    async with started(engine_on(emulator)) as engine:
        with pytest.raises(InvalidPrompt, match='unknown field "prompt"'):
            await run(engine, request)


@pytest.mark.parametrize(("dimensions", "normalize"), [(None, False), (1024, True), (1536, True)])
async def test_vectors_have_the_played_dimension_and_norm(
    emulator: Emulator, dimensions: int | None, normalize: bool
) -> None:
    async with started(engine_on(emulator, EMBEDDINGS)) as engine:
        asked = EmbedRequest(("a cat", "the cat", "bonds"), dimensions, normalize)
        a, b, c = await engine.embed(engine.prepare_embed(asked))
    assert {len(a), len(b), len(c)} == {dimensions or 1024}
    assert math.isclose(math.hypot(*a), 1.0) is normalize
    assert sum(map(float.__mul__, a, b)) > sum(map(float.__mul__, a, c))


@pytest.mark.parametrize("dimensions", [4, 7, 64])
def test_growing_keeps_every_distance(dimensions: int) -> None:
    one, other = [1.0, 2.0, -3.0, 0.5], [0.0, 1.0, 1.0, 9.0]
    grown, grown_other = (fitted(v, dimensions, False) for v in (one, other))
    assert math.dist(grown, grown_other) == pytest.approx(math.dist(one, other))
    assert len(fitted(one, 2, True)) == 2


def test_prompt_longer_than_the_context_is_refused_by_estimate() -> None:
    engine = RemoteEngine(RemoteServer("http://127.0.0.1:1/v1", context_length=5), "m")
    with pytest.raises(PromptTooLong):
        engine.prepare(GREEDY)


Reply = tuple[int, dict[str, str], bytes]
OK = {"Content-Type": "text/event-stream"}


def event(**choice: object) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, **choice}]}).encode() + b"\n\n"


class Foreign:
    """A server of few words: answers every POST with `reply`, and tells when its client left."""

    def __init__(self) -> None:
        self.models: Reply = (200, {}, b'{"data": [{"id": "m", "max_model_len": 64}]}')
        self.reply: Reply = (200, OK, b"")
        self.asked: list[dict[str, object]] = []
        self.endless = False
        self.left = threading.Event()
        self.url = ""


@pytest.fixture
def foreign() -> Iterator[Foreign]:
    told = Foreign()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(*told.models)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/tokenize":
                self._send(200, {}, json.dumps({"tokens": [0] * 200}).encode())
                return
            told.asked.append(body)
            self._send(*told.reply)
            try:
                while told.endless:
                    self.wfile.write(event(delta={"content": "more "}) * 50)
            except OSError:
                told.left.set()

        def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        told.url = f"http://127.0.0.1:{server.server_port}/v1"
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield told
        told.endless = False
        server.shutdown()
        serving.join()


@pytest.mark.parametrize(
    ("reply", "failure", "message"),
    [
        ((429, {"Retry-After": "7"}, b'{"error": {"message": "busy"}}'), RemoteOverloaded, "busy"),
        ((503, {}, b"upstream connect error"), RemoteFailed, "503: upstream connect error"),
        ((401, {}, b'{"detail": "no key"}'), RemoteFailed, "401: no key"),
        ((400, {}, b'{"message": "too long"}'), InvalidPrompt, "too long"),
        ((200, OK, event(delta={"content": "half"})), RemoteFailed, "ended the stream before"),
        ((200, OK, b'data: {"error": {"message": "OOM"}}\n\n'), RemoteFailed, "broke off: OOM"),
        (
            (
                200,
                OK,
                b'data: {"error": {"message": "2049 tokens", "type": "invalid_request_error"}}\n\n',
            ),
            InvalidPrompt,
            "^2049 tokens$",
        ),
        (
            (200, OK, b'data: {"object": "error", "message": "2049 tokens", "code": 400}\n\n'),
            InvalidPrompt,
            "^2049 tokens$",
        ),
        ((200, OK, b"data: {half\n\n"), RemoteFailed, "no JSON"),
        ((200, OK, b'data: {"choices": [null]}\n\n'), RemoteFailed, "no chunk: AttributeError"),
        ((200, OK, b'data: {"choices": null}\n\n'), RemoteFailed, "no chunk: TypeError"),
        ((200, OK, event(delta={"content": 5})), RemoteFailed, "no chunk: "),
        ((200, OK, event(delta={"content": "x"}, index=1)), RemoteFailed, "none of the 1 asked"),
        ((200, OK, b"<html>busy</html>"), RemoteFailed, "ended the stream before"),
        ((200, OK | {"Content-Length": "999"}, b"data: "), EngineDead, "broke off: peer closed"),
    ],
    ids=str,
)
async def test_failure_of_the_server_is_told_as_it_is(
    foreign: Foreign, reply: Reply, failure: type[EngineError], message: str
) -> None:
    foreign.reply = reply
    async with started(RemoteEngine(RemoteServer(foreign.url), "stand-in")) as engine:
        with pytest.raises(failure, match=message) as raised:
            await run(engine)
    assert getattr(raised.value, "retry_after", None) == (7 if reply[0] == 429 else None)


async def test_first_listed_model_its_context_and_its_tokenizer_are_used(foreign: Foreign) -> None:
    foreign.reply = (200, OK, event(delta={"content": "\u2028"}, finish_reason="eos"))
    async with started(RemoteEngine(RemoteServer(foreign.url), "stand-in")) as engine:
        assert (engine.info.architecture, engine.info.context_length) == ("m", 64)
        prepared: PreparedRequest = engine.prepare(GREEDY)
        assert 9 < prepared.num_prompt_tokens < 64
        chunks = await run(engine)
    assert chunks == [Chunk(0, "\u2028", 1), Chunk(0, "", 0, finish_reason="stop")]
    [asked] = foreign.asked
    assert (asked["model"], asked["stream_options"]) == ("m", {"include_usage": True})


async def test_server_that_knows_no_n_is_asked_for_one_answer_after_the_other(
    foreign: Foreign,
) -> None:
    foreign.reply = (200, OK, event(delta={"content": "Hi"}, finish_reason="stop"))
    request = replace(GREEDY, n=3, sampling=Sampling(seed=7))
    async with started(RemoteEngine(RemoteServer(foreign.url), "m")) as engine:
        chunks = await run(engine, request)
    assert [(c.index, c.text, c.finish_reason) for c in chunks] == [
        (index, *said) for index in range(3) for said in (("Hi", None), ("", "stop"))
    ]
    assert [(body.get("n"), body["seed"]) for body in foreign.asked] == [(3, 7), (2, 8), (None, 9)]


async def test_tools_and_json_schema_go_along_and_calls_come_back(foreign: Foreign) -> None:
    weather = {"name": "weather", "description": "Of a city.", "parameters": {"type": "object"}}
    begin = {"index": 0, "id": "call_1", "type": "function"}
    deltas = [
        {**begin, "function": {"name": "weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"city": "Paris"}'}},
    ]
    foreign.models = (200, {}, b'{"data": [{"id": "m"}]}')
    called = b"".join(event(delta={"tool_calls": [delta]}) for delta in deltas)
    foreign.reply = (200, OK, called + event(delta={}, finish_reason="tool_calls"))
    tools = ToolUse((Tool("weather", "Of a city.", {"type": "object"}),), "required")
    answer = JsonAnswer({"type": "object"})
    request = replace(GREEDY, tool_use=tools, json_answer=answer)
    async with started(RemoteEngine(RemoteServer(foreign.url), "m")) as engine:
        chunks = await run(engine, request)
    [asked] = foreign.asked
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


async def test_calls_that_all_have_number_0_are_told_apart_by_their_ids(foreign: Foreign) -> None:
    """As Ollama sends them: whole, and with `stop` at the end."""
    calls = [
        {"index": 0, "id": f"call_{n}", "function": {"name": "f", "arguments": f"[{n}]"}}
        for n in (1, 2)
    ]
    said = event(delta={"tool_calls": calls}) + event(delta={}, finish_reason="stop")
    foreign.reply = (200, OK, said)
    async with started(RemoteEngine(RemoteServer(foreign.url), "m")) as engine:
        chunks = await run(engine)
    assert [delta for chunk in chunks for delta in chunk.tool_calls] == [
        ToolCallDelta(0, "[1]", "call_1", "f"),
        ToolCallDelta(1, "[2]", "call_2", "f"),
    ]
    assert chunks[-1].finish_reason == "tool_calls"


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
async def test_thoughts_count_as_tokens_and_are_not_shown(foreign: Foreign, field: str) -> None:
    said = event(delta={field: "Hm", "content": ""}) + event(delta={"content": "Hi"})
    foreign.reply = (200, OK, said + event(delta={}, finish_reason="stop"))
    async with started(RemoteEngine(RemoteServer(foreign.url), "m")) as engine:
        chunks = await run(engine)
    assert [(c.text, c.num_tokens) for c in chunks] == [("", 1), ("Hi", 1), ("", 0)]


async def test_logprobs_of_completions_are_asked_for_and_read(foreign: Foreign) -> None:
    told = {
        "tokens": ["Hi", "!"],
        "token_logprobs": [-0.5, -1.0],
        "top_logprobs": [{"Hi": -0.5, "Yo": -2.0}, None],
    }
    foreign.reply = (200, OK, event(text="Hi!", logprobs=told, finish_reason="stop"))
    sampling = Sampling(logprobs=True, top_logprobs=2)
    request = GenerateRequest(prompt="Say", use_chat_template=False, sampling=sampling)
    async with started(RemoteEngine(RemoteServer(foreign.url), "m")) as engine:
        first, _ = await run(engine, request)
    assert [(t.text, t.logprob, [(o.text, o.logprob) for o in t.top]) for t in first.logprobs] == [
        ("Hi", -0.5, [("Hi", -0.5), ("Yo", -2.0)]),
        ("!", -1.0, []),
    ]
    assert (first.num_tokens, foreign.asked[0]["logprobs"]) == (2, 2)


@pytest.mark.parametrize("usage", [None, {"completion_tokens": "many"}, [], {}])
async def test_answer_without_a_usable_usage_is_counted_by_its_chunks(
    foreign: Foreign, usage: object
) -> None:
    end = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
    said = event(delta={"content": "a"}) + event(delta={"content": "b"}, finish_reason="stop")
    foreign.reply = (200, OK, said + end)
    async with started(RemoteEngine(RemoteServer(foreign.url), "m")) as engine:
        chunks = await run(engine)
    assert sum(c.num_tokens for c in chunks) == 2
    assert chunks[-1].num_prompt_tokens is None


async def test_stop_string_that_the_server_sends_is_cut_off(foreign: Foreign) -> None:
    said = b"".join(event(delta={"content": text}) for text in ("one", " tw", "o th", "ree"))
    foreign.reply = (200, OK, said + event(delta={}, finish_reason="stop"))
    async with started(RemoteEngine(RemoteServer(foreign.url), "m")) as engine:
        cut = await run(engine, replace(GREEDY, sampling=Sampling(stop=(" two",))))
        whole = await run(engine, replace(GREEDY, sampling=Sampling(stop=("reef",))))
    assert (text_of(cut), cut[-1].finish_reason) == ("one", "stop")
    assert (text_of(whole), whole[-1].finish_reason) == ("one two three", "stop")


async def test_leaving_closes_the_connection(foreign: Foreign) -> None:
    foreign.endless = True
    async with started(RemoteEngine(RemoteServer(foreign.url), "m")) as engine:
        async with engine.submit(engine.prepare(GREEDY)) as generation:
            first = await anext(aiter(generation))
        assert first == Chunk(0, "more ", 1)
        assert await asyncio.to_thread(foreign.left.wait, 10)


async def test_close_fails_what_runs(foreign: Foreign) -> None:
    foreign.endless = True
    async with started(RemoteEngine(RemoteServer(foreign.url), "m")) as engine:
        async with engine.submit(engine.prepare(GREEDY)) as generation:
            await anext(aiter(generation))
            engine.close()
            with pytest.raises(EngineClosed):
                async for _ in generation:
                    pass
        with pytest.raises(EngineClosed):
            engine.submit(engine.prepare(GREEDY))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"vectors": []}, "sent no vectors: 'data'"),
        ({"data": [{"index": 0, "embedding": None}]}, "sent no vectors: "),
        ({"data": [{"index": 0, "embedding": "AACA"}]}, "sent no vectors: "),
        ({"data": []}, "sent 0 vectors for 1 texts"),
        ({"data": [{"index": 0, "embedding": []}]}, "or empty ones"),
    ],
    ids=str,
)
async def test_answer_without_vectors_is_a_failure_of_the_server(
    foreign: Foreign, body: object, message: str
) -> None:
    foreign.reply = (200, {}, json.dumps(body).encode())
    async with started(RemoteEngine(RemoteServer(foreign.url), "m")) as engine:
        with pytest.raises(RemoteFailed, match=message):
            await engine.embed(engine.prepare_embed(EmbedRequest(("a",))))


@pytest.mark.parametrize("path", ["http://127.0.0.1:1/v1", "no url"])
def test_server_that_is_not_there_fails_the_load_by_name(path: str) -> None:
    with pytest.raises(LoadFailed, match=f"remote server {path} does not answer: "):
        RemoteEngine(RemoteServer(path), "m").start()


def test_list_of_models_may_fail_where_the_model_is_named(foreign: Foreign) -> None:
    foreign.models = (500, {}, b"Internal Server Error")
    with pytest.raises(LoadFailed, match="answered 500: Internal Server Error"):
        RemoteEngine(RemoteServer(foreign.url), "m").start()
    engine = RemoteEngine(RemoteServer(foreign.url, model="/models/x"), "m")
    engine.start()
    assert engine.info.architecture == "/models/x"


def test_key_that_is_no_header_fails_the_load(foreign: Foreign) -> None:
    with pytest.raises(LoadFailed, match="does not answer"):
        RemoteEngine(RemoteServer(foreign.url, key="schlüssel\n"), "m").start()


def test_server_without_models_wants_one_named(emulator: Emulator) -> None:
    server = RemoteServer(f"{emulator.url}/serving-endpoints", key="emu.remote")
    with pytest.raises(LoadFailed, match="lists no models: set remote_model"):
        RemoteEngine(server, "m").start()
