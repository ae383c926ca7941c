"""Completions over HTTP: prompts in a batch, echo, suffix, and what happens at a limit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from servemu.serving import Task
from servemu_engine.base import Chunk, TokenLogprob
from servemu_engine.errors import EngineDead
from servemu_engine.synthetic import SyntheticEngine

if TYPE_CHECKING:
    from openai import OpenAI
    from tests.emulator.data_plane.conftest import HeldClock, Plane, ScriptedEngine

TASK: Task = "llm/v1/completions"


def _choices(response: httpx.Response) -> list[dict[str, Any]]:
    """The choice of each event of a stream that ended well."""
    *events, done = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert done == "[DONE]"
    return [json.loads(event)["choices"][0] for event in events]


def test_whole_answer_with_echo_and_suffix(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine], hello: list[Chunk]
) -> None:
    plane.add("e", TASK, scripted(hello))
    body = {"prompt": "Say: ", "echo": True, "suffix": "!"}
    answer = http.post("/e/invocations", json=body).json()
    assert answer == {
        "id": answer["id"],
        "object": "text_completion",
        "created": answer["created"],
        "model": "e-model",
        "choices": [{"index": 0, "text": "Say: Hello!", "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }


def test_streamed_answer_with_echo_and_suffix(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine], hello: list[Chunk]
) -> None:
    plane.add("e", TASK, scripted(hello))
    body = {"prompt": "Say: ", "echo": True, "suffix": "!", "stream": True}
    choices = _choices(http.post("/e/invocations", json=body))
    assert [(c["text"], c["finish_reason"]) for c in choices] == [
        ("Say: He", None),
        ("llo", None),
        ("!", None),
        ("", "stop"),
    ]


EURO = [
    TokenLogprob("a", b"a", -0.5, (TokenLogprob("b", b"b", -0.25),)),
    TokenLogprob("\ufffd", "€".encode()[:2], -1.0),
    TokenLogprob("\ufffd", "€".encode()[2:], float("-inf")),
    TokenLogprob("!", b"!", -2.0),
]
LOGPROBS = {
    "tokens": ["a", "\ufffd", "\ufffd", "!"],
    "token_logprobs": [-0.5, -1.0, -9999.0, -2.0],
    "top_logprobs": [{"b": -0.25, "a": -0.5}, {"\ufffd": -1.0}, {"\ufffd": -9999.0}, {"!": -2.0}],
    "text_offset": [2, 3, 3, 4],
}


def test_logprobs_say_where_in_the_text_with_its_echo_each_token_begins(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine]
) -> None:
    """Whole and streamed; a token of half a character begins where the character does."""
    script = [
        Chunk(0, "a", 1, tuple(EURO[:1])),
        Chunk(0, "€", 2, tuple(EURO[1:3])),
        Chunk(0, "!", 1, tuple(EURO[3:]), finish_reason="stop"),
    ]
    engine = scripted(script)
    plane.add("e", TASK, engine)
    body = {"prompt": ">>", "echo": True, "logprobs": 1}
    [whole] = http.post("/e/invocations", json=body).json()["choices"]
    assert whole == {"index": 0, "text": ">>a€!", "finish_reason": "stop", "logprobs": LOGPROBS}
    parts = _choices(http.post("/e/invocations", json={**body, "stream": True}))
    assert [part["text"] for part in parts] == [">>a", "€", "!", ""]
    told = [part["logprobs"] for part in parts if part["logprobs"]]
    assert {key: sum((one[key] for one in told), []) for key in LOGPROBS} == LOGPROBS
    assert parts[-1]["logprobs"] is None
    assert [(one.sampling.logprobs, one.sampling.top_logprobs) for one in engine.requests] == [
        (True, 1)
    ] * 2


@pytest.mark.parametrize(
    ("prompt", "n", "indices"),
    [(["a"], 2, [0, 1]), (["a", "b"], 1, [0, 1]), (["a", "b"], 2, [0, 0, 1, 1])],
)
def test_index_is_the_prompts_in_a_batch(
    plane: Plane,
    http: httpx.Client,
    synthetic: SyntheticEngine,
    prompt: list[str],
    n: int,
    indices: list[int],
) -> None:
    plane.add("e", TASK, synthetic)
    body = {"prompt": prompt, "n": n, "max_tokens": 4, "echo": True}
    answer = http.post("/e/invocations", json=body).json()
    assert [choice["index"] for choice in answer["choices"]] == indices
    assert answer["usage"]["completion_tokens"] == 4 * len(indices)


def test_streamed_batch_is_the_whole_batch(
    plane: Plane, sdk: OpenAI, synthetic: SyntheticEngine
) -> None:
    plane.add("e", TASK, synthetic)
    create: Any = sdk.completions.create
    asked = {"model": "e", "prompt": ["one", "two", "three"], "temperature": 0, "max_tokens": 40}
    whole = create(**asked)
    texts = ["", "", ""]
    for chunk in create(**asked, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
        usage = chunk.usage
    assert texts == [choice.text for choice in whole.choices]
    assert len(set(texts)) == 3
    assert usage == whole.usage


def test_answer_that_cannot_fit_is_an_error(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine]
) -> None:
    plane.add("e", TASK, scripted([], num_prompt_tokens=900))
    response = http.post("/e/invocations", json={"prompt": "x", "max_tokens": 101})
    assert response.status_code == 400
    assert response.json() == {
        "error_code": "BAD_REQUEST",
        "message": "Bad request: prompt token count (900) plus max_tokens (101) "
        "cannot exceed 1000\n",
    }


def test_answer_that_cannot_fit_is_cut_when_asked_for(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine], hello: list[Chunk]
) -> None:
    plane.add("e", TASK, scripted(hello, num_prompt_tokens=900))
    body = {"prompt": "x", "max_tokens": 101, "error_behavior": "truncate"}
    assert http.post("/e/invocations", json=body).status_code == 200


def test_time_over_ends_the_text_where_it_is_when_asked_for(
    plane: Plane,
    http: httpx.Client,
    scripted: type[ScriptedEngine],
    hello: list[Chunk],
    held_clock: HeldClock,
) -> None:
    plane.add("e", TASK, scripted(hello[:1], hangs=True))
    plane.clock = held_clock
    body = {"prompt": "x", "stream": True, "error_behavior": "truncate"}
    with http.stream("POST", "/e/invocations", json=body) as response:
        lines = response.iter_lines()
        next(lines)
        held_clock.release()
        last, done = (line.removeprefix("data: ") for line in lines if line)
    assert json.loads(last)["choices"] == [
        {"index": 0, "text": "", "finish_reason": "length", "logprobs": None}
    ]
    assert done == "[DONE]"


def test_one_failing_prompt_fails_the_batch_and_frees_the_others(
    plane: Plane, http: httpx.Client, scripted: type[ScriptedEngine], hello: list[Chunk]
) -> None:
    engine = scripted(hello[:1], failure=EngineDead("x"))
    served = plane.add("e", TASK, engine)
    response = http.post("/e/invocations", json={"prompt": ["a", "b", "c"]})
    assert response.status_code == 503
    assert engine.left.is_set()
    assert served.budget.in_flight == 0
