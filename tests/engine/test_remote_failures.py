"""What the remote engine makes of servers that fail, refuse or are not there."""

import json

import pytest
from tests.generated import chunks_of
from tests.remote_servers import GREEDY, OK, Reply, TerseServer, event, started

from servemu.testing import Emulator
from servemu_engine.base import EmbedRequest
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

pytestmark = pytest.mark.anyio


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
    terse: TerseServer, reply: Reply, failure: type[EngineError], message: str
) -> None:
    terse.reply = reply
    async with started(RemoteEngine(RemoteServer(terse.url), "stand-in")) as engine:
        with pytest.raises(failure, match=message) as raised:
            await chunks_of(engine, GREEDY)
    assert getattr(raised.value, "retry_after", None) == (7 if reply[0] == 429 else None)


async def test_close_fails_what_runs(terse: TerseServer) -> None:
    terse.endless = True
    async with started(RemoteEngine(RemoteServer(terse.url), "m")) as engine:
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
    terse: TerseServer, body: object, message: str
) -> None:
    terse.reply = (200, {}, json.dumps(body).encode())
    async with started(RemoteEngine(RemoteServer(terse.url), "m")) as engine:
        with pytest.raises(RemoteFailed, match=message):
            await engine.embed(engine.prepare_embed(EmbedRequest(("a",))))


@pytest.mark.parametrize("path", ["http://127.0.0.1:1/v1", "no url"])
def test_server_that_is_not_there_fails_the_load_by_name(path: str) -> None:
    with pytest.raises(LoadFailed, match=f"remote server {path} does not answer: "):
        RemoteEngine(RemoteServer(path), "m").start()


def test_list_of_models_may_fail_where_the_model_is_named(terse: TerseServer) -> None:
    terse.models = (500, {}, b"Internal Server Error")
    with pytest.raises(LoadFailed, match="answered 500: Internal Server Error"):
        RemoteEngine(RemoteServer(terse.url), "m").start()
    engine = RemoteEngine(RemoteServer(terse.url, model="/models/x"), "m")
    engine.start()
    assert engine.info.architecture == "/models/x"


def test_key_that_is_no_header_fails_the_load(terse: TerseServer) -> None:
    with pytest.raises(LoadFailed, match="does not answer"):
        RemoteEngine(RemoteServer(terse.url, key="schlüssel\n"), "m").start()


def test_server_without_models_wants_one_named(emulator: Emulator) -> None:
    server = RemoteServer(f"{emulator.url}/serving-endpoints", key="emu.remote")
    with pytest.raises(LoadFailed, match="lists no models: set remote_model"):
        RemoteEngine(server, "m").start()


def test_prompt_longer_than_the_context_is_refused_by_estimate() -> None:
    engine = RemoteEngine(RemoteServer("http://127.0.0.1:1/v1", context_length=5), "m")
    with pytest.raises(PromptTooLong):
        engine.prepare(GREEDY)
