"""`databricks_langchain`: ChatDatabricks and DatabricksEmbeddings."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import httpx
import openai
import pytest
from databricks_langchain import ChatDatabricks, DatabricksEmbeddings
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from pydantic import BaseModel
from requests import HTTPError

CHAT = "databricks-meta-llama-3-1-8b-instruct"
SERVED = "meta-llama-3.1-8b-instruct-072424"
GTE = "databricks-gte-large-en"
QUESTION = "What is the sea?"
ANSWER = "You asked about sea, so here is a short answer."

Make = Callable[..., ChatDatabricks]
Busy = Callable[[], AbstractContextManager[str]]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes models; their connections are closed at the end."""
    made: list[ChatDatabricks] = []

    def make(endpoint: str = CHAT, **fields: object) -> ChatDatabricks:
        made.append(ChatDatabricks(endpoint=endpoint, **{"temperature": 0, **fields}))
        return made[-1]

    yield make
    for model in made:
        model.client.close()


def test_invoke_answers_a_message_with_its_usage(make: Make) -> None:
    message = make(max_tokens=12).invoke(QUESTION)
    assert isinstance(message, AIMessage)
    assert message.content == ANSWER
    assert message.usage_metadata == {"input_tokens": 8, "output_tokens": 12, "total_tokens": 20}
    assert message.response_metadata == {
        "usage": {"prompt_tokens": 8, "completion_tokens": 12, "total_tokens": 20},
        "prompt_tokens": 8,
        "completion_tokens": 12,
        "total_tokens": 20,
        "model": SERVED,
        "model_name": SERVED,
        "finish_reason": "length",
    }


def test_a_conversation_is_sent_with_its_roles(make: Make) -> None:
    message = make(max_tokens=4).invoke(
        [SystemMessage("Be short."), HumanMessage("Hi"), AIMessage("Hello"), HumanMessage(QUESTION)]
    )
    assert message.usage_metadata == {"input_tokens": 19, "output_tokens": 4, "total_tokens": 23}


def test_stream_is_the_answer_in_pieces(make: Make) -> None:
    model = make()
    chunks = list(model.stream(QUESTION))
    whole = model.invoke(QUESTION)
    assert len(chunks) > 10
    assert "".join(chunk.content for chunk in chunks) == whole.content
    reasons = [chunk.response_metadata.get("finish_reason") for chunk in chunks]
    assert [reason for reason in reasons if reason] == ["stop"]


def test_the_usage_of_a_stream_grows_to_that_of_the_whole_answer(make: Make) -> None:
    model = make(max_tokens=3)
    usages = [chunk.usage_metadata for chunk in model.stream(QUESTION) if chunk.usage_metadata]
    assert [usage["output_tokens"] for usage in usages[:3]] == [1, 2, 3]
    assert usages[-1] == model.invoke(QUESTION).usage_metadata


def test_batch_answers_in_order(make: Make) -> None:
    model = make(max_tokens=12)
    answers = [message.content for message in model.batch(["hi", QUESTION, "hi"])]
    assert answers == [model.invoke("hi").content, ANSWER, model.invoke("hi").content]


def test_n_gives_as_many_generations(make: Make) -> None:
    result = make(n=3, max_tokens=5, temperature=1).generate([[HumanMessage(QUESTION)]])
    (generations,) = result.generations
    assert [one.generation_info for one in generations] == [{"finish_reason": "length"}] * 3
    usage = {"input_tokens": 8, "output_tokens": 15, "total_tokens": 23}
    assert [one.message.usage_metadata for one in generations] == [usage] * 3


@pytest.mark.parametrize("stop", [["sea"], ["nothing", "sea"]])
def test_stop_ends_the_answer_before_it(make: Make, stop: list[str]) -> None:
    message = make().invoke(QUESTION, stop=stop)
    assert message.content == "You asked about "
    assert message.response_metadata["finish_reason"] == "stop"


def test_an_unknown_endpoint_is_a_not_found_error(make: Make) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        make("nope").invoke(QUESTION)
    assert raised.value.body == {
        "error_code": "ENDPOINT_NOT_FOUND",
        "message": "The given endpoint does not exist, please retry after checking the specified "
        "model and version deployment exists.",
    }


def test_an_overload_is_a_rate_limit_error(busy: Busy, make: Make) -> None:
    with busy() as name, pytest.raises(openai.RateLimitError) as raised:
        make(name, max_retries=0).invoke(QUESTION)
    assert raised.value.response.headers["retry-after"] == "1"


@pytest.mark.anyio
async def test_the_asynchronous_calls_answer_the_same(make: Make) -> None:
    model = make(max_tokens=12)
    assert (await model.ainvoke(QUESTION)).content == ANSWER
    assert "".join([chunk.content async for chunk in model.astream(QUESTION)]) == ANSWER
    await model.async_client.close()


def test_a_query_is_embedded() -> None:
    embeddings = DatabricksEmbeddings(endpoint=GTE)
    vector = embeddings.embed_query("deep sea")
    assert len(vector) == 1024
    assert embeddings.embed_documents(["red apple", "deep sea"])[1] == vector


def test_45_documents_are_three_calls_and_keep_their_order(
    monkeypatch: pytest.MonkeyPatch, raw: httpx.Client
) -> None:
    texts = [f"text {number}" for number in range(45)]
    embeddings = DatabricksEmbeddings(endpoint=GTE)
    sent: list[int] = []
    predict = type(embeddings._client).predict

    def counted(*args: object, **kwargs: dict[str, list[str]]) -> object:
        sent.append(len(kwargs["inputs"]["input"]))
        return predict(*args, **kwargs)

    monkeypatch.setattr(type(embeddings._client), "predict", counted)
    vectors = embeddings.embed_documents(texts)
    assert sent == [20, 20, 5]
    body = {"input": texts}
    rows = raw.post(f"/serving-endpoints/{GTE}/invocations", json=body).json()["data"]
    assert vectors == [row["embedding"] for row in rows]


def test_the_instruction_of_a_query_changes_its_vector() -> None:
    plain = DatabricksEmbeddings(endpoint=GTE)
    asked = DatabricksEmbeddings(endpoint=GTE, query_params={"instruction": "Find"})
    assert asked.embed_query("deep sea") != plain.embed_query("deep sea")
    assert asked.embed_documents(["deep sea"]) == plain.embed_documents(["deep sea"])


def test_embeddings_of_an_unknown_endpoint_are_an_http_error() -> None:
    with pytest.raises(HTTPError, match="404 Client Error: The given endpoint does not exist"):
        DatabricksEmbeddings(endpoint="nope").embed_query("deep sea")


class Forecast(BaseModel):
    """The weather of a city."""

    city: str
    days: int


def test_bound_tools_are_called_and_their_result_is_answered(make: Make) -> None:
    model = make().bind_tools([Forecast], tool_choice="required")
    asked = HumanMessage("What is the weather in Bern?")
    called = model.invoke([asked])
    (call,) = called.tool_calls
    assert (call["name"], called.response_metadata["finish_reason"]) == ("Forecast", "tool_calls")
    assert Forecast(**call["args"]).city
    answer = make().invoke([asked, called, ToolMessage("sunny", tool_call_id=call["id"])])
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.content


def test_structured_output_is_the_pydantic_model(make: Make) -> None:
    for method in ("function_calling", "json_schema"):
        model = make().with_structured_output(Forecast, method=method)
        assert isinstance(model.invoke("What is the weather in Bern, as json?"), Forecast)
