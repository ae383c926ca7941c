"""Chat over HTTP: whole, streamed, failing, and with the client gone."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from servemu.serving import Task
from servemu.throughput.budget import TokenBudget
from servemu.throughput.terms import Bounds, Terms
from servemu_engine.base import Chunk, TokenLogprob
from servemu_engine.errors import EngineClosed, EngineDead, InvalidPrompt, PromptTooLong
from servemu_engine.synthetic import SyntheticEngine

if TYPE_CHECKING:
    from openai import OpenAI
    from tests.emulator.data_plane.conftest import (
        HeldClock,
        JumpingClock,
        Plane,
        ScriptedEngine,
    )

CHAT: Task = "llm/v1/chat"
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
STREAM = {**BODY, "stream": True}
STOPPED = "The model server of served entity 'e-1' stopped."


def _data(response: httpx.Response) -> list[str]:
    """The events of a stream, which has nothing else in it."""
    parts = response.text.split("\n\n")
    assert parts.pop() == ""
    assert all(part.startswith("data: ") and "\n" not in part for part in parts)
    return [part.removeprefix("data: ") for part in parts]


def _event(answer: dict[str, Any], choice: dict[str, Any], completion: int) -> dict[str, Any]:
    return {
        "id": answer["id"],
        "object": "chat.completion.chunk",
        "created": answer["created"],
        "model": "e-model",
        "choices": [{"index": 0, "logprobs": None, **choice}],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": completion,
            "total_tokens": 3 + completion,
        },
    }


def test_whole_answer(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine], hello: list[Chunk]
) -> None:
    plane.add("e", CHAT, scripted(hello))
    response = http.post("/e/invocations", json=BODY)
    answer = response.json()
    assert response.status_code == 200
    assert response.headers["served-model-name"] == "e-1"
    assert re.fullmatch("chatcmpl_[0-9a-f-]{36}", answer["id"])
    assert answer == {
        "id": answer["id"],
        "object": "chat.completion",
        "created": answer["created"],
        "model": "e-model",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello"},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }


def test_streamed_answer_has_usage_everywhere_and_ends_with_done(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine], hello: list[Chunk]
) -> None:
    plane.add("e", CHAT, scripted(hello))
    response = http.post("/e/invocations", json=STREAM)
    *events, done = _data(response)
    first, second, last = map(json.loads, events)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["served-model-name"] == "e-1"
    assert first == _event(
        first, {"delta": {"role": "assistant", "content": "He"}, "finish_reason": None}, 1
    )
    assert second == _event(first, {"delta": {"content": "llo"}, "finish_reason": None}, 3)
    assert last == _event(first, {"delta": {"content": ""}, "finish_reason": "stop"}, 4)
    assert done == "[DONE]"


def test_text_in_the_engines_last_chunk_comes_before_the_finish_reason(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine]
) -> None:
    plane.add("e", CHAT, scripted([Chunk(0, "Hi", 2, finish_reason="length")]))
    first, last, _ = _data(http.post("/e/invocations", json=STREAM))
    choice, ending = (json.loads(event)["choices"][0] for event in (first, last))
    assert (choice["delta"]["content"], choice["finish_reason"]) == ("Hi", None)
    assert (ending["delta"], ending["finish_reason"]) == ({"content": ""}, "length")


def test_answer_without_text_is_one_event_with_the_role(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine]
) -> None:
    script = [Chunk(0, "", 1), Chunk(0, "", 1, finish_reason="stop")]
    plane.add("e", CHAT, scripted(script))
    only, _ = _data(http.post("/e/invocations", json=STREAM))
    answer = json.loads(only)
    delta = {"role": "assistant", "content": ""}
    assert answer == _event(answer, {"delta": delta, "finish_reason": "stop"}, 2)


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine], stream: bool
) -> None:
    token = TokenLogprob("Hi", b"Hi", -0.5)
    never = TokenLogprob("é", "é".encode(), float("-inf"))
    chunk = Chunk(0, "Hi", 1, (replace(token, top=(token, never)),))
    plane.add("e", CHAT, scripted([chunk, Chunk(0, "", 0, finish_reason="stop")]))
    body = {**BODY, "stream": stream, "logprobs": True, "top_logprobs": 2}
    response = http.post("/e/invocations", json=body)
    answer = json.loads(_data(response)[0]) if stream else response.json()
    assert answer["choices"][0]["logprobs"] == {
        "content": [
            {
                "token": "Hi",
                "logprob": -0.5,
                "bytes": [72, 105],
                "top_logprobs": [
                    {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]},
                    {"token": "é", "logprob": -9999.0, "bytes": [195, 169]},
                ],
            }
        ]
    }


def test_several_choices_are_streamed_in_turns(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine]
) -> None:
    script = [
        Chunk(0, "a", 1),
        Chunk(1, "b", 1),
        Chunk(1, "", 0, finish_reason="stop"),
        Chunk(0, "", 0, finish_reason="length"),
    ]
    plane.add("e", CHAT, scripted(script))
    *events, _ = _data(http.post("/e/invocations", json={**STREAM, "n": 2}))
    choices = [json.loads(event)["choices"][0] for event in events]
    assert [(c["index"], c["delta"], c["finish_reason"]) for c in choices] == [
        (0, {"role": "assistant", "content": "a"}, None),
        (1, {"role": "assistant", "content": "b"}, None),
        (1, {"content": ""}, "stop"),
        (0, {"content": ""}, "length"),
    ]


def test_several_streamed_answers_end_each_before_its_own_stop_string(
    plane: Plane, http: httpx.Client, synthetic: SyntheticEngine
) -> None:
    plane.add("e", CHAT, synthetic)
    asked = {**BODY, "n": 5, "max_tokens": 60}
    free = http.post("/e/invocations", json=asked).json()["choices"]
    stop = [free[0]["message"]["content"][3:9], free[3]["message"]["content"][40:43]]
    whole = http.post("/e/invocations", json={**asked, "stop": stop}).json()
    *events, _ = _data(http.post("/e/invocations", json={**asked, "stop": stop, "stream": True}))
    texts, ends = [""] * 5, [""] * 5
    for choice in (json.loads(event)["choices"][0] for event in events):
        assert not ends[choice["index"]]
        texts[choice["index"]] += choice["delta"]["content"]
        ends[choice["index"]] = choice["finish_reason"]
    cut = [min([c["message"]["content"].partition(s)[0] for s in stop], key=len) for c in free]
    assert texts == [choice["message"]["content"] for choice in whole["choices"]] == cut
    assert ends == [choice["finish_reason"] for choice in whole["choices"]]
    assert texts[0] == free[0]["message"]["content"][:3] and len(set(map(len, texts))) > 1
    assert json.loads(events[-1])["usage"] == whole["usage"]


def test_thoughts_of_a_distilled_model_are_text_like_any(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine]
) -> None:
    """facts/data_plane §3.6: a GUESS."""
    script = [Chunk(0, "<think>hm</think>", 3), Chunk(0, "Hi", 1, finish_reason="stop")]
    plane.add("e", CHAT, scripted(script))
    message = http.post("/e/invocations", json=BODY).json()["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "<think>hm</think>Hi"}
    *events, _ = _data(http.post("/e/invocations", json=STREAM))
    deltas = [json.loads(event)["choices"][0]["delta"]["content"] for event in events]
    assert deltas == ["<think>hm</think>", "Hi", ""]


def test_streamed_text_is_the_whole_text(
    plane: Plane, sdk: OpenAI, synthetic: SyntheticEngine
) -> None:
    plane.add("e", CHAT, synthetic)
    call: Any = sdk.chat.completions.create
    asked = {"model": "e", "messages": BODY["messages"], "temperature": 0, "max_tokens": 50}
    whole = call(**asked)
    chunks = list(call(**asked, stream=True))
    assert "".join(c.choices[0].delta.content for c in chunks) == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert whole.usage.completion_tokens > 3


def test_engine_that_dies_before_the_first_byte_is_a_503(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine]
) -> None:
    plane.add("e", CHAT, scripted([], failure=EngineDead("x")))
    for body in (BODY, STREAM):
        response = http.post("/e/invocations", json=body)
        assert response.status_code == 503
        assert response.json() == {"error_code": "TEMPORARILY_UNAVAILABLE", "message": STOPPED}


def test_engine_that_was_closed_is_a_503(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine]
) -> None:
    plane.add("e", CHAT, scripted([], refusal=EngineClosed("x")))
    response = http.post("/e/invocations", json=BODY)
    assert response.status_code == 503
    assert response.json() == {"error_code": "TEMPORARILY_UNAVAILABLE", "message": STOPPED}


def test_engine_that_dies_in_the_stream_is_an_event_and_no_done(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine], hello: list[Chunk]
) -> None:
    plane.add("e", CHAT, scripted(hello[:1], failure=EngineDead("x")))
    response = http.post("/e/invocations", json=STREAM)
    first, last = _data(response)
    assert response.status_code == 200
    assert json.loads(first)["choices"][0]["delta"]["content"] == "He"
    assert json.loads(last) == {"error_code": "TEMPORARILY_UNAVAILABLE", "message": STOPPED}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (
            PromptTooLong(1200, 1000),
            "prompt token count (1200) cannot exceed 1000. "
            "Please reduce the length of your prompt.",
        ),
        (InvalidPrompt("no template"), "no template"),
    ],
)
def test_prompt_the_engine_refuses_is_a_400_also_for_a_stream(
    plane: Plane,
    http: httpx.Client,
    scripted: type[ScriptedEngine],
    refusal: Exception,
    message: str,
    stream: bool,
) -> None:
    plane.add("e", CHAT, scripted([], refusal=refusal))
    response = http.post("/e/invocations", json={**BODY, "stream": stream})
    assert response.status_code == 400
    assert response.json() == {"error_code": "BAD_REQUEST", "message": f"Bad request: {message}\n"}


@pytest.mark.parametrize("body", [BODY, STREAM])
def test_overload_is_a_429_before_the_first_byte(
    plane: Plane,
    http: httpx.Client,
    scripted: type[ScriptedEngine],
    hello: list[Chunk],
    body: dict[str, Any],
) -> None:
    budget = TokenBudget(1000.0, plane.clock, Terms(bounds=Bounds(seconds=1.0)))
    assert budget.queue is not None
    budget.queue.waiting_tokens = 5000
    plane.add_limited("e", CHAT, scripted(hello), budget)
    response = http.post("/e/invocations", json=body)
    assert response.status_code == 429
    assert response.headers["retry-after"] == "6"  # (5000 - 750) / 750
    assert response.json() == {
        "error_code": "REQUEST_LIMIT_EXCEEDED",
        "message": "Too many concurrent requests. Consider increasing the provisioned "
        "concurrency of the served entity.",
    }
    assert budget.paid == 0


@pytest.mark.parametrize("stream", [False, True])
def test_prompt_and_answer_are_paid_from_the_budget(
    plane: Plane,
    http: httpx.Client,
    jumping_clock: JumpingClock,
    synthetic: SyntheticEngine,
    stream: bool,
) -> None:
    budget = TokenBudget(100.0, jumping_clock)
    plane.add_limited("e", CHAT, synthetic, budget)
    body = {**BODY, "stream": stream, "max_tokens": 16}
    response = http.post("/e/invocations", json=body)
    answer = json.loads(_data(response)[-2]) if stream else response.json()
    total = answer["usage"]["total_tokens"]
    assert answer["usage"]["completion_tokens"] == 16
    assert budget.paid == total
    assert jumping_clock.monotonic() == pytest.approx(total / 100.0 - 0.05)


def test_stream_is_sent_as_it_grows_and_ends_when_its_reader_leaves(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine], hello: list[Chunk]
) -> None:
    engine = scripted(hello[:1], hangs=True)
    served = plane.add("e", CHAT, engine)
    with http.stream("POST", "/e/invocations", json=STREAM) as response:
        lines = response.iter_lines()  # kept: its end would close the response
        first = json.loads(next(lines).removeprefix("data: "))
        assert first["choices"][0]["delta"]["content"] == "He"
        assert not engine.left.is_set()
    assert engine.left.wait(5)
    assert served.budget.paid == 4


def test_whole_answer_ends_when_its_reader_leaves(
    plane: Plane, scripted: type[ScriptedEngine], hello: list[Chunk]
) -> None:
    engine = scripted(hello[:1], hangs=True)
    plane.add("e", CHAT, engine)
    with plane.post_without_waiting("/e/invocations", BODY):
        assert engine.entered.wait(5)
        assert not engine.left.is_set()
    assert engine.left.wait(5)


@pytest.mark.parametrize("body", [BODY, STREAM])
def test_who_leaves_the_queue_pays_nothing(
    plane: Plane, scripted: type[ScriptedEngine], held_clock: HeldClock, body: dict[str, Any]
) -> None:
    engine = scripted([])
    served = plane.add_limited("e", CHAT, engine, TokenBudget(1.0, held_clock))
    with plane.post_without_waiting("/e/invocations", body):
        assert held_clock.sleeping.wait(5)
        assert served.budget.queue is not None
        assert served.budget.queue.waiting_tokens == 3
    assert held_clock.left.wait(5)
    assert not engine.entered.is_set()
    assert served.budget.paid == 0


def test_whole_answer_over_the_time_limit_is_a_408(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine], jumping_clock: JumpingClock
) -> None:
    engine = scripted([], hangs=True)
    plane.add("e", CHAT, engine)
    plane.clock = jumping_clock
    response = http.post("/e/invocations", json=BODY)
    assert response.status_code == 408
    assert response.json() == {"error_code": "REQUEST_TIMEOUT", "message": "Request timed out."}


def test_stream_over_the_time_limit_is_an_event_and_no_done(
    plane: Plane,
    http: httpx.Client,
    scripted: type[ScriptedEngine],
    hello: list[Chunk],
    held_clock: HeldClock,
) -> None:
    engine = scripted(hello[:1], hangs=True)
    plane.add("e", CHAT, engine)
    plane.clock = held_clock
    with http.stream("POST", "/e/invocations", json=STREAM) as response:
        lines = response.iter_lines()
        next(lines)
        held_clock.release()
        last = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    assert last == [{"error_code": "REQUEST_TIMEOUT", "message": "Request timed out."}]
    assert engine.left.is_set()
