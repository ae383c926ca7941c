"""What one request may not bring to the engine, and many threads that bring theirs at once."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from servemu_engine.base import GenerateRequest, JsonAnswer, Sampling
from servemu_engine.errors import InvalidPrompt, InvalidSampling
from servemu_engine.local import LocalEngine, LocalOptions

NAN, INFINITE = float("nan"), float("inf")
PROMPT = GenerateRequest(prompt="the cat", use_chat_template=False)


@pytest.fixture(scope="module")
def engine(byte_llama: Callable[..., Path], compiled_libraries: Path) -> Iterator[LocalEngine]:
    """Its tokenizer cuts by itself, as its file says, and knows a token that the model does not."""
    folder = byte_llama("border", max_position_embeddings=2048)
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["truncation"] = {
        "direction": "Right",
        "max_length": 16,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    unknown = {**tokenizer["added_tokens"][0], "id": 257, "content": "<more>", "special": False}
    tokenizer["added_tokens"].append(unknown)
    file.write_text(json.dumps(tokenizer))
    engine = LocalEngine(folder, "border", LocalOptions(device="cpu", compiled=compiled_libraries))
    engine.start()
    yield engine
    engine.close()


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"temperature": NAN}, "temperature cannot be nan"),
        ({"temperature": INFINITE}, "temperature cannot be inf"),
        ({"temperature": -0.5}, "temperature cannot be -0.5"),
        ({"top_p": NAN}, "top_p cannot be nan"),
        ({"top_p": 1.5}, "top_p cannot be 1.5"),
        ({"max_tokens": 0}, "max_tokens cannot be 0"),
        ({"top_logprobs": -1}, "top_logprobs cannot be -1"),
    ],
)
def test_sampling_by_numbers_that_are_none_is_refused(
    engine: LocalEngine, sampling: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidSampling, match=message):
        engine.prepare(replace(PROMPT, sampling=Sampling(**sampling)))


@pytest.mark.parametrize("n", [0, -1])
def test_no_answers_cannot_be_asked_for(engine: LocalEngine, n: int) -> None:
    with pytest.raises(InvalidSampling, match=f"n cannot be {n}"):
        engine.prepare(replace(PROMPT, n=n))


def test_token_that_the_model_does_not_have_is_refused(engine: LocalEngine) -> None:
    with pytest.raises(InvalidPrompt, match="token 257 is not one of the 257 tokens of the model"):
        engine.prepare(replace(PROMPT, prompt="a <more> b"))


def test_many_threads_prepare_at_once(engine: LocalEngine) -> None:
    requests = [
        replace(
            PROMPT,
            prompt=f"{number} " + "word " * (number % 50),
            json_answer=JsonAnswer({"const": number % 7}) if number % 3 else None,
        )
        for number in range(300)
    ]
    with ThreadPoolExecutor(8) as threads:
        prepared = list(threads.map(engine.prepare, requests))
    assert [p.token_ids for p in prepared] == [
        engine.prepare(request).token_ids for request in requests
    ]
    assert [p.num_prompt_tokens for p in prepared] == [len(r.prompt) for r in requests]
