"""`databricks_openai`: the OpenAI client with Databricks' authentication, both of its kinds."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager

import openai
import pytest
from databricks_openai import AsyncDatabricksOpenAI, DatabricksOpenAI

CHAT = "databricks-meta-llama-3-1-8b-instruct"
GTE = "databricks-gte-large-en"
QUESTION = [{"role": "user", "content": "What is the sea?"}]

Busy = Callable[[], AbstractContextManager[str]]


@pytest.fixture
def client() -> Iterator[DatabricksOpenAI]:
    with DatabricksOpenAI() as client:
        yield client


@pytest.fixture
async def aclient() -> AsyncIterator[AsyncDatabricksOpenAI]:
    async with AsyncDatabricksOpenAI() as client:
        yield client


def test_a_chat_is_answered(client: DatabricksOpenAI) -> None:
    answer = client.chat.completions.create(
        model=CHAT, messages=QUESTION, temperature=0, max_tokens=5
    )
    assert answer.model_dump(exclude_unset=True) == {
        "id": answer.id,
        "object": "chat.completion",
        "created": answer.created,
        "model": "meta-llama-3.1-8b-instruct-072424",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "You asked about sea,"},
                "finish_reason": "length",
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": 8, "completion_tokens": 5, "total_tokens": 13},
    }


def test_a_stream_is_the_answer_in_pieces(client: DatabricksOpenAI) -> None:
    whole = client.chat.completions.create(model=CHAT, messages=QUESTION, temperature=0)
    chunks = list(
        client.chat.completions.create(model=CHAT, messages=QUESTION, temperature=0, stream=True)
    )
    text = "".join(chunk.choices[0].delta.content for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].usage == whole.usage


def test_embeddings_are_the_same_in_both_encodings(client: DatabricksOpenAI) -> None:
    packed = client.embeddings.create(model=GTE, input=["red apple", "deep sea"])
    listed = client.embeddings.create(model=GTE, input="deep sea", encoding_format="float")
    assert [len(row.embedding) for row in packed.data] == [1024, 1024]
    assert packed.data[1].embedding == pytest.approx(listed.data[0].embedding, rel=1e-6)
    assert packed.usage.prompt_tokens == 8


def test_an_unknown_endpoint_is_a_not_found_error(client: DatabricksOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="nope", messages=QUESTION)
    assert raised.value.body == {
        "error_code": "ENDPOINT_NOT_FOUND",
        "message": "The given endpoint does not exist, please retry after checking the specified "
        "model and version deployment exists.",
    }


def test_an_overload_is_a_rate_limit_error(busy: Busy) -> None:
    with (
        busy() as name,
        DatabricksOpenAI(max_retries=0) as client,
        pytest.raises(openai.RateLimitError) as raised,
    ):
        client.chat.completions.create(model=name, messages=QUESTION)
    assert raised.value.body == {
        "error_code": "REQUEST_LIMIT_EXCEEDED",
        "message": "Too many concurrent requests. Consider increasing the provisioned concurrency "
        "of the served entity.",
    }


@pytest.mark.anyio
async def test_the_asynchronous_client_answers_the_same(aclient: AsyncDatabricksOpenAI) -> None:
    answer = await aclient.chat.completions.create(
        model=CHAT, messages=QUESTION, temperature=0, max_tokens=9
    )
    stream = await aclient.chat.completions.create(
        model=CHAT, messages=QUESTION, temperature=0, max_tokens=9, stream=True
    )
    streamed = "".join([chunk.choices[0].delta.content async for chunk in stream])
    assert streamed == answer.choices[0].message.content == "You asked about sea, so here is a"
    vectors = await aclient.embeddings.create(model=GTE, input="deep sea")
    assert len(vectors.data[0].embedding) == 1024
