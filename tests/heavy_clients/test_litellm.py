"""litellm's `databricks/<endpoint>`: completions, streams, embeddings, and its error classes."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import litellm
import pytest

CHAT = "databricks/databricks-meta-llama-3-1-8b-instruct"
GTE = "databricks/databricks-gte-large-en"
QUESTION = [{"role": "user", "content": "What is the sea?"}]
SERVED = "databricks/meta-llama-3.1-8b-instruct-072424"

Busy = Callable[[], AbstractContextManager[str]]


@pytest.fixture(autouse=True)
def no_tokenizer_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a stream of a model with llama-3 in its name litellm counts with a downloaded one.

    Without a network it tries for 24 s; this is the switch it has for that.
    """
    monkeypatch.setattr(litellm, "disable_hf_tokenizer_download", True)


def test_a_completion_is_the_endpoints_answer() -> None:
    answer = litellm.completion(CHAT, QUESTION, temperature=0, max_tokens=9)
    assert answer.model == SERVED
    assert answer.id.startswith("chatcmpl_")
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content == "You asked about sea, so here is a"
    assert choice.finish_reason == "length"
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (8, 9, 17)


def test_parameters_reach_the_endpoint() -> None:
    answer = litellm.completion(
        CHAT,
        [{"role": "system", "content": "Be short."}, *QUESTION],
        max_completion_tokens=40,
        temperature=1.5,
        top_p=0.9,
        n=2,
        stop=[".", ","],
    )
    assert [choice.finish_reason for choice in answer.choices] == ["stop", "stop"]
    assert not any("." in c.message.content or "," in c.message.content for c in answer.choices)
    assert answer.usage.prompt_tokens == 13


def test_a_stream_is_the_completion_in_pieces() -> None:
    whole = litellm.completion(CHAT, QUESTION, temperature=0)
    chunks = list(
        litellm.completion(
            CHAT, QUESTION, temperature=0, stream=True, stream_options={"include_usage": True}
        )
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert len([piece for piece in pieces if piece]) > 10
    assert "".join(pieces) == whole.choices[0].message.content
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert [reason for reason in reasons if reason] == ["stop"]
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_embeddings_come_in_the_order_of_the_texts() -> None:
    both = litellm.embedding(GTE, input=["red apple", "deep sea"])
    assert [row["index"] for row in both.data] == [0, 1]
    assert [len(row["embedding"]) for row in both.data] == [1024, 1024]
    assert both.usage.prompt_tokens == 8
    (alone,) = litellm.embedding(GTE, input=["deep sea"]).data
    assert alone["embedding"] == both.data[1]["embedding"]


def test_an_unknown_endpoint_is_a_not_found_error() -> None:
    with pytest.raises(litellm.NotFoundError, match="The given endpoint does not exist") as raised:
        litellm.completion("databricks/nope", QUESTION)
    assert raised.value.status_code == 404
    assert raised.value.llm_provider == "databricks"


def test_a_bad_parameter_is_a_bad_request_error() -> None:
    with pytest.raises(litellm.BadRequestError, match="temperature must be") as raised:
        litellm.completion(CHAT, QUESTION, temperature=5)
    assert raised.value.status_code == 400


def test_an_overload_is_a_rate_limit_error(busy: Busy) -> None:
    with busy() as name, pytest.raises(litellm.RateLimitError) as raised:
        litellm.completion(f"databricks/{name}", QUESTION)
    assert raised.value.status_code == 429
    assert '"error_code":"REQUEST_LIMIT_EXCEEDED"' in str(raised.value)


@pytest.mark.anyio
async def test_the_asynchronous_calls_answer_the_same() -> None:
    wanted: dict[str, Any] = {"temperature": 0, "max_tokens": 9}
    answer = await litellm.acompletion(CHAT, QUESTION, **wanted)
    stream = await litellm.acompletion(CHAT, QUESTION, stream=True, **wanted)
    streamed = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert streamed == answer.choices[0].message.content == "You asked about sea, so here is a"
    vectors = await litellm.aembedding(GTE, input=["deep sea"])
    assert len(vectors.data[0]["embedding"]) == 1024
