"""The engine without a model: counting, replies, endings, probabilities, vectors."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.generated import chunks_of, text_of

from servemu_engine.base import (
    Chunk,
    Embedder,
    EmbedRequest,
    Engine,
    EngineInfo,
    GenerateRequest,
    Message,
    Sampling,
)
from servemu_engine.errors import EngineClosed, InvalidPrompt, PromptTooLong
from servemu_engine.synthetic import Replies, SyntheticEngine
from servemu_engine.synthetic_text import pieces

pytestmark = pytest.mark.anyio

QUESTION = (Message("user", "Why do lighthouses flash at night?"),)
GREEDY = GenerateRequest(messages=QUESTION, sampling=Sampling(temperature=0))


@pytest.fixture
def engine() -> SyntheticEngine:
    return SyntheticEngine("echo")


def with_sampling(**changes: object) -> GenerateRequest:
    return replace(GREEDY, sampling=replace(GREEDY.sampling, **changes))  # type: ignore[arg-type]


def test_it_is_an_engine_and_an_embedder(engine: SyntheticEngine) -> None:
    as_engine: Engine = engine
    as_embedder: Embedder = engine
    expected = EngineInfo(
        "echo", "synthetic", "synthetic", "none", "none", 131072, 0, 0, load_seconds=0.0
    )
    assert as_engine.info == as_embedder.info == expected


def test_importing_it_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import servemu_engine.synthetic, sys; sys.exit(bool({'torch','numpy'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.text(alphabet=st.sampled_from("ab Ü漢\n\t .,!{}<|>_9🙂"), max_size=200))
def test_tokens_joined_are_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("Hello, world!", ["Hello", ",", " world", "!"]),
        ("internationally", ["internat", "ionally"]),
        ("a  \n b ", ["a", "  \n b", " "]),
        (" " * 20, [" " * 8, " " * 8, " " * 4]),
    ],
)
def test_tokens_follow_the_documented_rule(text: str, expected: list[str]) -> None:
    assert pieces(text) == expected


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (GenerateRequest(prompt="one two three", use_chat_template=False), 3),
        (GenerateRequest(prompt="one two three"), 6),
        (GenerateRequest(messages=(Message("user", "one two three"),)), 6),
        (GenerateRequest(messages=(Message("system", "be brief"), *QUESTION)), 15),
    ],
)
def test_prompt_tokens_count_text_and_turns(
    engine: SyntheticEngine, request_: GenerateRequest, expected: int
) -> None:
    prepared = engine.prepare(request_)
    assert (prepared.num_prompt_tokens, len(prepared.token_ids)) == (expected, expected)


@pytest.mark.parametrize(
    "request_", [GenerateRequest(), GenerateRequest(messages=QUESTION, prompt="both")]
)
def test_prepare_refuses_neither_or_both_of_messages_and_prompt(
    engine: SyntheticEngine, request_: GenerateRequest
) -> None:
    with pytest.raises(InvalidPrompt, match="exactly one of messages and prompt"):
        engine.prepare(request_)


def test_prompt_that_fills_the_context_is_refused(engine: SyntheticEngine) -> None:
    request = GenerateRequest(prompt="a b c d", use_chat_template=False, context_length=4)
    with pytest.raises(PromptTooLong) as refusal:
        engine.prepare(request)
    assert (refusal.value.num_tokens, refusal.value.limit) == (4, 4)


def test_own_context_holds_when_none_is_asked() -> None:
    small = SyntheticEngine("small", context_length=3)
    with pytest.raises(PromptTooLong):
        small.prepare(GenerateRequest(prompt="a b c", use_chat_template=False))


@pytest.mark.parametrize(("asked", "expected"), [(None, 7), (5, 5), (7, 7), (100, 7)])
def test_max_tokens_is_cut_to_the_room_left(
    engine: SyntheticEngine, asked: int | None, expected: int
) -> None:
    request = GenerateRequest(
        prompt="a b c",
        use_chat_template=False,
        context_length=10,
        sampling=Sampling(max_tokens=asked),
    )
    assert engine.prepare(request).max_tokens == expected


def test_played_context_longer_than_own_keeps_the_newest_tokens() -> None:
    small = SyntheticEngine("small", context_length=2)
    request = GenerateRequest(prompt="a b c", use_chat_template=False, context_length=10)
    prepared = small.prepare(request)
    newest = SyntheticEngine("big").prepare(GenerateRequest(prompt=" b c", use_chat_template=False))
    assert (prepared.num_prompt_tokens, prepared.token_ids) == (3, newest.token_ids)


async def test_reply_is_english_about_the_question(engine: SyntheticEngine) -> None:
    text = text_of(await chunks_of(engine, GREEDY))
    assert "lighthouses flash night" in text
    assert text[0].isupper() and text.endswith(".")


async def test_reply_read_back_as_a_prompt_counts_the_same_tokens(engine: SyntheticEngine) -> None:
    chunks = await chunks_of(engine, GREEDY)
    assert pieces(text_of(chunks)) == [chunk.text for chunk in chunks]


async def test_greedy_text_is_the_same_in_another_engine(engine: SyntheticEngine) -> None:
    again = SyntheticEngine("echo")
    assert await chunks_of(engine, GREEDY) == await chunks_of(again, GREEDY)


async def test_greedy_text_is_the_same_in_another_process(engine: SyntheticEngine) -> None:
    code = (
        "import asyncio\n"
        "from servemu_engine.base import GenerateRequest, Message, Sampling\n"
        "from servemu_engine.synthetic import SyntheticEngine\n"
        "request = GenerateRequest((Message('user', 'Why do lighthouses flash at night?'),),\n"
        "                          sampling=Sampling(temperature=0))\n"
        "async def main():\n"
        "    engine = SyntheticEngine('echo')\n"
        "    return ''.join([c.text async for c in engine.submit(engine.prepare(request))])\n"
        "print(asyncio.run(main()), end='')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == text_of(await chunks_of(engine, GREEDY))


@pytest.mark.parametrize(
    "other",
    [
        replace(GREEDY, messages=(Message("user", "Why do lighthouses flash at noon?"),)),
        replace(GREEDY, messages=(Message("system", "Be brief."), *QUESTION)),
        GenerateRequest(prompt=QUESTION[0].content, sampling=Sampling(temperature=0)),
    ],
)
async def test_another_prompt_gets_another_text(
    engine: SyntheticEngine, other: GenerateRequest
) -> None:
    assert text_of(await chunks_of(engine, GREEDY)) != text_of(await chunks_of(engine, other))


async def test_same_seed_gives_the_same_text(engine: SyntheticEngine) -> None:
    first = await chunks_of(engine, with_sampling(temperature=1.0, seed=7))
    assert first == await chunks_of(engine, with_sampling(temperature=1.0, seed=7))
    assert first != await chunks_of(engine, with_sampling(temperature=1.0, seed=8))


async def test_same_request_gives_the_same_text_at_any_temperature(engine: SyntheticEngine) -> None:
    request = with_sampling(temperature=1.0)
    first = await chunks_of(engine, request)
    assert first == await chunks_of(SyntheticEngine("echo"), request)
    assert first != await chunks_of(engine, GREEDY)


async def test_reply_that_ends_by_itself_stops(engine: SyntheticEngine) -> None:
    chunks = await chunks_of(engine, GREEDY)
    assert [c.finish_reason for c in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert all(c.num_tokens == 1 for c in chunks)


@pytest.mark.parametrize("max_tokens", [1, 2, 10])
async def test_max_tokens_ends_with_length(engine: SyntheticEngine, max_tokens: int) -> None:
    chunks = await chunks_of(engine, with_sampling(max_tokens=max_tokens))
    assert [c.num_tokens for c in chunks] == [1] * max_tokens
    assert chunks[-1].finish_reason == "length"
    assert text_of(await chunks_of(engine, GREEDY)).startswith(text_of(chunks))


async def test_max_tokens_zero_answers_nothing(engine: SyntheticEngine) -> None:
    assert await chunks_of(engine, with_sampling(max_tokens=0)) == [Chunk(0, "", 0, (), "length")]


async def test_replies_without_own_end_run_to_max_tokens() -> None:
    engine = SyntheticEngine("echo", replies=Replies(mean_tokens=None))
    chunks = await chunks_of(engine, with_sampling(max_tokens=5000))
    assert (len(chunks), chunks[-1].finish_reason) == (5000, "length")


async def test_chunks_of_several_tokens_carry_the_same_text(engine: SyntheticEngine) -> None:
    by_four = SyntheticEngine("echo", replies=Replies(tokens_per_chunk=4))
    ones, fours = await chunks_of(engine, GREEDY), await chunks_of(by_four, GREEDY)
    assert text_of(ones) == text_of(fours)
    assert {c.num_tokens for c in fours[:-1]} == {4}
    assert sum(c.num_tokens for c in fours) == len(ones)


@pytest.mark.parametrize("size", [1, 3, 9])
async def test_stop_string_across_tokens_cuts_the_text_before_it(
    engine: SyntheticEngine, size: int
) -> None:
    whole = text_of(await chunks_of(engine, GREEDY))
    stop = whole[20 : 20 + size]
    expected = whole[: whole.index(stop)]
    chunks = await chunks_of(engine, with_sampling(stop=("never seen", stop)))
    assert (text_of(chunks), chunks[-1].finish_reason) == (expected, "stop")


async def test_earliest_of_stop_strings_in_one_token_wins(engine: SyntheticEngine) -> None:
    whole = text_of(await chunks_of(engine, GREEDY))
    chunks = await chunks_of(engine, with_sampling(stop=("hou", "ghthou")))
    assert text_of(chunks) == whole[: whole.index("ghthou")]


async def test_text_held_back_for_a_stop_string_is_given_at_the_end(
    engine: SyntheticEngine,
) -> None:
    whole = text_of(await chunks_of(engine, GREEDY))
    chunks = await chunks_of(engine, with_sampling(stop=(whole[-5:] + "!",)))
    assert text_of(chunks) == whole
    assert sum(c.num_tokens for c in chunks) == len(await chunks_of(engine, GREEDY))


async def test_n_answers_come_in_turns_and_each_ends_once(engine: SyntheticEngine) -> None:
    request = replace(with_sampling(temperature=1.0, seed=1), n=3)
    chunks = await chunks_of(engine, request)
    assert [c.index for c in chunks[:6]] == [0, 1, 2, 0, 1, 2]
    assert sorted(c.index for c in chunks if c.finish_reason) == [0, 1, 2]
    assert len({text_of(chunks, index) for index in range(3)}) == 3


async def test_first_of_n_answers_is_the_only_answer_of_one(engine: SyntheticEngine) -> None:
    one = with_sampling(temperature=1.0, seed=1)
    assert text_of(await chunks_of(engine, replace(one, n=2))) == text_of(
        await chunks_of(engine, one)
    )


async def test_logprobs_are_absent_unless_asked(engine: SyntheticEngine) -> None:
    assert all(chunk.logprobs == () for chunk in await chunks_of(engine, GREEDY))


async def test_logprobs_do_not_change_the_text(engine: SyntheticEngine) -> None:
    with_them = await chunks_of(engine, with_sampling(logprobs=True, top_logprobs=3))
    assert [c.text for c in with_them] == [c.text for c in await chunks_of(engine, GREEDY)]


@pytest.mark.parametrize("num_top", [0, 1, 5, 20])
async def test_logprobs_are_a_valid_distribution(engine: SyntheticEngine, num_top: int) -> None:
    chunks = await chunks_of(engine, with_sampling(logprobs=True, top_logprobs=num_top))
    for chunk in chunks:
        (token,) = chunk.logprobs
        chances = [math.exp(t.logprob) for t in token.top]
        assert (token.text, token.raw) == (chunk.text, chunk.text.encode())
        assert len({t.text for t in token.top}) == num_top
        assert sum(chances) <= 1 and chances == sorted(chances, reverse=True)
        assert token.top == () or (token.top[0].text, token.top[0].logprob) == (
            token.text,
            token.logprob,
        )


async def test_leaving_early_ends_the_answer(engine: SyntheticEngine) -> None:
    async with engine.submit(engine.prepare(GREEDY)) as generation:
        first = [await anext(aiter(generation)) for _ in range(3)]
    assert (len(first), [c async for c in generation]) == (3, [])


async def test_close_fails_what_runs_and_what_comes(engine: SyntheticEngine) -> None:
    prepared = engine.prepare(GREEDY)
    generation = engine.submit(prepared)
    await anext(aiter(generation))
    engine.close()
    engine.close()
    with pytest.raises(EngineClosed, match="'echo' is closed"):
        await anext(aiter(generation))
    with pytest.raises(EngineClosed, match="'echo' is closed"):
        engine.submit(prepared)
    with pytest.raises(EngineClosed, match="'echo' is closed"):
        await engine.embed(engine.prepare_embed(EmbedRequest(("text",))))


async def embed(engine: SyntheticEngine, request: EmbedRequest) -> list[list[float]]:
    return [list(v) for v in await engine.embed(engine.prepare_embed(request))]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


@pytest.mark.parametrize(("dimensions", "expected"), [(None, 384), (1024, 1024), (8, 8)])
async def test_vectors_have_the_asked_length(
    engine: SyntheticEngine, dimensions: int | None, expected: int
) -> None:
    vectors = await embed(engine, EmbedRequest(("a", "b"), dimensions=dimensions))
    assert [len(v) for v in vectors] == [expected, expected]


async def test_norm_is_one_only_when_normalised(engine: SyntheticEngine) -> None:
    texts = ("a cat", "", "quarterly revenue")
    for vector in await embed(engine, EmbedRequest(texts, normalize=True)):
        assert math.hypot(*vector) == pytest.approx(1.0, abs=1e-12)
    for vector in await embed(engine, EmbedRequest(texts)):
        assert 8 <= math.hypot(*vector) <= 12


async def test_vectors_do_not_depend_on_what_else_is_asked(engine: SyntheticEngine) -> None:
    together = await embed(engine, EmbedRequest(("one", "two", "three")))
    alone = [(await embed(engine, EmbedRequest((t,))))[0] for t in ("one", "two", "three")]
    assert together == alone


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("A cat sat on the mat", "the cat sits on a mat", "the market fell on Tuesday"),
        ("reset my password", "I forgot my password", "bake sourdough bread"),
        ("connection error", "connecting errors", "purple elephants"),
    ],
)
async def test_near_texts_are_nearer_than_far_ones(
    engine: SyntheticEngine, text: str, near: str, far: str
) -> None:
    a, b, c = await embed(engine, EmbedRequest((text, near, far)))
    assert cosine(a, b) > cosine(a, c) + 0.2


async def test_text_is_cut_to_the_context_before_it_is_embedded(engine: SyntheticEngine) -> None:
    long = EmbedRequest(("one two three four",), context_length=4)
    short = EmbedRequest(("one two",))
    assert engine.prepare_embed(long).num_prompt_tokens == 4
    assert await embed(engine, long) == await embed(engine, short)


def test_embed_tokens_count_each_text_with_its_frame(engine: SyntheticEngine) -> None:
    prepared = engine.prepare_embed(EmbedRequest(("one two", "")))
    assert ([len(ids) for ids in prepared.token_ids], prepared.num_prompt_tokens) == ([4, 2], 6)


def test_no_texts_are_refused(engine: SyntheticEngine) -> None:
    with pytest.raises(InvalidPrompt, match="no text to embed"):
        engine.prepare_embed(EmbedRequest(()))
