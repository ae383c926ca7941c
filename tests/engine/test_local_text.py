"""The text of a tiny random Llama, against transformers' own generate and forward."""

import asyncio
from dataclasses import replace

import pytest
import torch
from tests.generated import answer_of, chunks_of
from tests.tiny_text import GREEDY, PROMPTS, Reference, raw
from transformers import PreTrainedTokenizerBase

from servemu_engine.base import Sampling
from servemu_engine.local import LocalEngine, LocalOptions

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("prompt", PROMPTS)
async def test_greedy_alone_is_what_generate_gives(
    engine: LocalEngine, reference: Reference, prompt: str
) -> None:
    ids = reference.tokenizer.encode(prompt)
    chunks = await chunks_of(engine, raw(prompt))
    assert "".join(chunk.text for chunk in chunks) == reference.text(ids, 24)
    assert sum(chunk.num_tokens for chunk in chunks) == len(reference.greedy(ids, 24))


async def test_greedy_among_others_is_what_generate_gives(
    engine: LocalEngine, reference: Reference
) -> None:
    sampled = [raw(p, Sampling(temperature=2.0, seed=1, max_tokens=30)) for p in PROMPTS]
    requests = [
        request for pair in zip(map(raw, PROMPTS), sampled, strict=True) for request in pair
    ]
    texts = await asyncio.gather(*(answer_of(engine, request) for request in requests))
    expected = [reference.text(reference.tokenizer.encode(p), 24) for p in PROMPTS]
    assert texts[::2] == expected


async def test_long_and_short_ones_together_are_what_generate_gives(
    engine: LocalEngine, reference: Reference
) -> None:
    prompts = ["a", "the dog " * 400, "where", "cat mat " * 140]
    texts = await asyncio.gather(*(answer_of(engine, raw(prompt)) for prompt in prompts))
    ids = [reference.tokenizer.encode(prompt) for prompt in prompts]
    assert len(ids[1]) > 512 > len(ids[0])
    assert texts == [reference.text(prompt, 24) for prompt in ids]


async def test_small_cache_evicts_and_still_gives_what_generate_gives(reference: Reference) -> None:
    kv_bytes = 320 * 512
    engine = LocalEngine(reference.folder, "tiny", LocalOptions(device="cpu", kv_bytes=kv_bytes))
    engine.start()
    requests = [raw(prompt, replace(GREEDY, max_tokens=90)) for prompt in PROMPTS]
    texts = await asyncio.gather(*(answer_of(engine, request) for request in requests))
    engine.close()
    expected = [reference.text(reference.tokenizer.encode(p), 90) for p in PROMPTS]
    assert texts == expected


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(seed=3, max_tokens=20),
        Sampling(seed=3, max_tokens=20, top_p=0.7),
        Sampling(seed=3, max_tokens=20, top_k=5, temperature=0.8),
    ],
)
async def test_seed_repeats_the_text_whatever_else_runs(
    engine: LocalEngine, sampling: Sampling
) -> None:
    alone = await answer_of(engine, raw("the cat", sampling))
    others = [raw(prompt, Sampling(max_tokens=20)) for prompt in PROMPTS]
    among, *_ = await asyncio.gather(
        *(answer_of(engine, request) for request in [raw("the cat", sampling), *others])
    )
    assert among == alone
    assert await answer_of(engine, raw("the cat", replace(sampling, seed=4))) != alone


async def test_no_seed_is_a_fresh_draw(engine: LocalEngine) -> None:
    request = raw("the cat", Sampling(max_tokens=30))
    assert await answer_of(engine, request) != await answer_of(engine, request)


async def test_n_answers_differ_by_index_and_repeat_with_the_seed(engine: LocalEngine) -> None:
    request = replace(raw("the cat", Sampling(seed=9, max_tokens=12)), n=3)

    async def read() -> list[str]:
        texts = ["", "", ""]
        for chunk in await chunks_of(engine, request):
            texts[chunk.index] += chunk.text
        return texts

    texts = await read()
    assert len(set(texts)) == 3
    assert await read() == texts


async def test_logprobs_are_those_of_the_models_own_forward(
    engine: LocalEngine, reference: Reference
) -> None:
    sampling = Sampling(seed=3, temperature=0.8, max_tokens=16, logprobs=True, top_logprobs=4)
    chunks = await chunks_of(engine, raw("the cat", sampling))
    entries = [entry for chunk in chunks for entry in chunk.logprobs]
    ids = reference.tokenizer.encode("the cat")
    token_of = {bytes_of(reference.tokenizer, id): id for id in range(len(reference.tokenizer))}
    expected, got = [], []
    for entry in entries:
        logprobs = reference.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        token = token_of[entry.raw]
        ids.append(token)
        expected.append([float(logprobs[token]), *logprobs.topk(4).values.tolist()])
        got.append([entry.logprob, *(top.logprob for top in entry.top)])
    has_end = chunks[-1].finish_reason == "stop"
    assert len(entries) == sum(chunk.num_tokens for chunk in chunks) - has_end > 8
    torch.testing.assert_close(torch.tensor(got), torch.tensor(expected), rtol=1e-4, atol=1e-4)


def bytes_of(tokenizer: PreTrainedTokenizerBase, token: int) -> bytes:
    """Exact bytes, by the byte-level alphabet as GPT-2 defined it."""
    name = tokenizer.convert_ids_to_tokens(token)
    if name.startswith("<|"):
        return str(name).encode()
    visible = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
    hidden = [b for b in range(256) if b not in visible]
    table = {chr(b): b for b in visible} | {chr(256 + i): b for i, b in enumerate(hidden)}
    return bytes(table[character] for character in name)


async def test_streamed_text_has_no_half_characters_before_the_end(engine: LocalEngine) -> None:
    sampling = Sampling(seed=1, temperature=5.0, max_tokens=60)
    chunks = await chunks_of(engine, raw("日本語", sampling))
    assert sum(chunk.num_tokens for chunk in chunks) == 60
    assert [chunk.finish_reason for chunk in chunks][-1] == "length"


async def test_stop_string_ends_the_answer_before_it(engine: LocalEngine) -> None:
    whole = await answer_of(engine, raw("the cat"))
    stop = whole[5:8]
    chunks = await chunks_of(engine, raw("the cat", replace(GREEDY, stop=(stop,))))
    assert "".join(chunk.text for chunk in chunks) == whole[: whole.index(stop)]
    assert chunks[-1].finish_reason == "stop"
