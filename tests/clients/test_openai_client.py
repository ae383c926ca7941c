"""The OpenAI client, unmodified, on real weights: streams, logprobs, embeddings, isolation."""

import math
from concurrent.futures import ThreadPoolExecutor

import openai as errors
import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.service.serving import EndpointCoreConfigInput, ServedEntityInput
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

CHAT = "databricks-meta-llama-3-1-8b-instruct"
GTE = "databricks-gte-large-en"
BGE = "databricks-bge-large-en"
PROMPTS = [
    "What is the capital of France?",
    "Name three colours.",
    "Write one sentence about the sea.",
    "Why is the sky blue?",
    "What is 2 + 2?",
    "Say hello in Spanish.",
    "Who wrote Hamlet?",
    "List two fruits.",
]


def ask(client: OpenAI, prompt: str, max_tokens: int = 16) -> str:
    answer = client.chat.completions.create(
        model=CHAT,
        messages=[{"role": "user", "content": prompt}],
        temperature=0,
        max_tokens=max_tokens,
    )
    return answer.choices[0].message.content or ""


def embed(client: OpenAI, model: str, *texts: str) -> list[list[float]]:
    return [row.embedding for row in client.embeddings.create(model=model, input=texts).data]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (norm(a) * norm(b))


def norm(vector: list[float]) -> float:
    return math.sqrt(sum(x * x for x in vector))


def test_streamed_text_equals_unary_text(openai: OpenAI) -> None:
    stream = openai.chat.completions.create(
        model=CHAT,
        messages=[{"role": "user", "content": PROMPTS[2]}],
        temperature=0,
        max_tokens=40,
        stream=True,
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert len(pieces) > 10
    assert "".join(pieces) == ask(openai, PROMPTS[2], 40)


def test_usage_grows_in_each_chunk_up_to_the_unary_usage(openai: OpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": PROMPTS[0]}]
    unary = openai.chat.completions.create(
        model=CHAT, messages=messages, temperature=0, max_tokens=16
    )
    stream = openai.chat.completions.create(
        model=CHAT, messages=messages, temperature=0, max_tokens=16, stream=True
    )
    usages = [chunk.usage for chunk in stream]
    counts = [usage.completion_tokens for usage in usages if usage is not None]
    assert len(counts) == len(usages) and counts == sorted(counts)
    assert usages[-1] == unary.usage


def test_greedy_text_alone_equals_its_text_in_a_full_batch(openai: OpenAI) -> None:
    alone = [ask(openai, prompt) for prompt in PROMPTS]
    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(lambda prompt: ask(openai, prompt), PROMPTS * 4))
    assert together == alone * 4


def test_chat_logprobs_are_those_of_the_greedy_tokens(openai: OpenAI) -> None:
    answer = openai.chat.completions.create(
        model=CHAT,
        messages=[{"role": "user", "content": PROMPTS[0]}],
        temperature=0,
        max_tokens=16,
        logprobs=True,
        top_logprobs=3,
    )
    choice = answer.choices[0]
    assert choice.logprobs is not None and choice.logprobs.content
    assert "".join(token.token for token in choice.logprobs.content) == choice.message.content
    for token in choice.logprobs.content:
        best = max(token.top_logprobs, key=lambda top: top.logprob)
        assert len(token.top_logprobs) == 3
        assert (best.token, best.logprob) == (token.token, token.logprob)
        assert sum(math.exp(top.logprob) for top in token.top_logprobs) <= 1 + 1e-6


def test_streamed_logprobs_equal_unary_logprobs(openai: OpenAI) -> None:
    def request(**more: object) -> object:
        return openai.chat.completions.create(  # type: ignore[call-overload]
            model=CHAT,
            messages=[{"role": "user", "content": PROMPTS[1]}],
            temperature=0,
            max_tokens=12,
            logprobs=True,
            top_logprobs=2,
            **more,
        )

    unary = request().choices[0].logprobs.content  # type: ignore[attr-defined]
    streamed = [
        token
        for chunk in request(stream=True)  # type: ignore[attr-defined]
        if chunk.choices[0].logprobs is not None
        for token in chunk.choices[0].logprobs.content
    ]
    assert [token.token for token in streamed] == [token.token for token in unary]
    for a, b in zip(streamed, unary, strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-4)


def test_stop_string_ends_the_text_before_it(openai: OpenAI) -> None:
    answer = openai.chat.completions.create(
        model=CHAT,
        messages=[{"role": "user", "content": PROMPTS[0]}],
        temperature=0,
        max_tokens=32,
        stop=["Paris"],
    )
    assert answer.choices[0].message.content == "The capital of France is "
    assert answer.choices[0].finish_reason == "stop"


def test_n_answers_differ_when_sampled_and_agree_when_greedy(openai: OpenAI) -> None:
    def texts(temperature: float) -> list[str]:
        answer = openai.chat.completions.create(
            model=CHAT,
            messages=[{"role": "user", "content": "Invent a name for a cat and tell its story."}],
            temperature=temperature,
            max_tokens=24,
            n=3,
        )
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        return [choice.message.content or "" for choice in answer.choices]

    assert len(set(texts(1.0))) == 3
    assert len(set(texts(0.0))) == 1


def test_gte_vectors_are_1024_long_and_not_normalised(openai: OpenAI) -> None:
    vectors = embed(openai, GTE, "a cat sat on the mat", "rockets burn fuel")
    assert [len(vector) for vector in vectors] == [1024, 1024]
    assert all(abs(norm(vector) - 1) > 0.1 for vector in vectors)


def test_bge_vectors_are_1024_long_and_normalised(openai: OpenAI) -> None:
    vectors = embed(openai, BGE, "a cat sat on the mat", "rockets burn fuel")
    assert [len(vector) for vector in vectors] == [1024, 1024]
    assert [norm(vector) for vector in vectors] == pytest.approx([1, 1], abs=1e-5)


@pytest.mark.parametrize("model", [GTE, BGE])
def test_near_texts_are_nearer_than_far_ones(openai: OpenAI, model: str) -> None:
    cat, kitten, rocket = embed(
        openai, model, "The cat sleeps.", "A kitten is napping.", "Rockets burn liquid oxygen."
    )
    assert cosine(cat, kitten) > cosine(cat, rocket) + 0.2


def test_a_prompt_over_the_context_is_refused_with_its_count(openai: OpenAI) -> None:
    with pytest.raises(errors.BadRequestError) as refused:
        ask(openai, "word " * 140_000)
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["error_code"] == "BAD_REQUEST"
    assert refused.value.body["message"].startswith("Bad request: prompt token count (14")


def test_a_wrong_task_is_refused(openai: OpenAI) -> None:
    with pytest.raises(errors.BadRequestError):
        openai.embeddings.create(model=CHAT, input="x")


def test_completions_continue_a_raw_prompt(openai: OpenAI, databricks: WorkspaceClient) -> None:
    model = ServedEntityInput(
        entity_name="system.ai.mistral_7b_v0_1",
        entity_version="2",
        min_provisioned_throughput=970,
        max_provisioned_throughput=970,
    )
    config = EndpointCoreConfigInput(name="base", served_entities=[model])
    databricks.serving_endpoints.create_and_wait("base", config=config)
    answer = openai.completions.create(
        model="base",
        prompt="The capital of France is",
        temperature=0,
        max_tokens=4,
        extra_body={"use_raw_prompt": True},
    )
    assert answer.object == "text_completion"
    assert "Paris" in answer.choices[0].text
