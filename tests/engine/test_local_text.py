"""The whole text path on a tiny random Llama, against transformers' own generate and forward."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from servemu_engine.base import Chunk, GenerateRequest, Message, Sampling
from servemu_engine.cache import Layout
from servemu_engine.chat_template import encode_request
from servemu_engine.errors import (
    EngineClosed,
    EngineDead,
    InvalidPrompt,
    LoadFailed,
    PromptTooLong,
)
from servemu_engine.local import LocalEngine, LocalOptions
from servemu_engine.runner import Runner

pytestmark = pytest.mark.anyio

WINDOW = 1024
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROMPTS = (
    "the cat",
    "a",
    "where is the dog? " * 5,
    "naïve café 日本語",
    "x" * 120,
    "on the mat, the cat sat",
)
GREEDY = Sampling(temperature=0, max_tokens=24)


@dataclass(frozen=True)
class Reference:
    """The same weights in transformers' own hands."""

    folder: Path
    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerBase

    def greedy(self, ids: list[int], max_tokens: int) -> list[int]:
        """Tokens of `generate`, with the end token if there is one."""
        output = self.model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=0,
        )
        tokens: list[int] = output[0, len(ids) :].tolist()
        return tokens

    def text(self, ids: list[int], max_tokens: int) -> str:
        tokens = self.greedy(ids, max_tokens)
        before = self.tokenizer.decode(ids, skip_special_tokens=True)
        return str(self.tokenizer.decode(ids + tokens, skip_special_tokens=True))[len(before) :]


def train_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(PROMPTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", chat_template=TEMPLATE
    )


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("tiny-llama-text")
    tokenizer = train_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=WINDOW,
        initializer_range=0.2,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    (folder / "config.json").write_text(config.to_json_string())
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return Reference(folder, model, tokenizer)


@pytest.fixture(scope="module")
def engine(reference: Reference) -> Iterator[LocalEngine]:
    """One engine for all tests: each of them has an event loop of its own."""
    engine = LocalEngine(reference.folder, "tiny", LocalOptions(device="cpu", max_num_sequences=4))
    engine.start()
    yield engine
    engine.close()


def raw(prompt: str, sampling: Sampling = GREEDY) -> GenerateRequest:
    return GenerateRequest(prompt=prompt, use_chat_template=False, sampling=sampling)


async def chunks_of(engine: LocalEngine, request: GenerateRequest) -> list[Chunk]:
    async with engine.submit(engine.prepare(request)) as generation:
        return [chunk async for chunk in generation]


async def text_of(engine: LocalEngine, request: GenerateRequest) -> str:
    return "".join(chunk.text for chunk in await chunks_of(engine, request))


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
    texts = await asyncio.gather(*(text_of(engine, request) for request in requests))
    expected = [reference.text(reference.tokenizer.encode(p), 24) for p in PROMPTS]
    assert texts[::2] == expected


async def test_long_and_short_ones_together_are_what_generate_gives(
    engine: LocalEngine, reference: Reference
) -> None:
    prompts = ["a", "the dog " * 400, "where", "cat mat " * 140]
    texts = await asyncio.gather(*(text_of(engine, raw(prompt)) for prompt in prompts))
    ids = [reference.tokenizer.encode(prompt) for prompt in prompts]
    assert len(ids[1]) > 512 > len(ids[0])
    assert texts == [reference.text(prompt, 24) for prompt in ids]


async def test_small_cache_evicts_and_still_gives_what_generate_gives(reference: Reference) -> None:
    kv_bytes = 320 * 512
    engine = LocalEngine(reference.folder, "tiny", LocalOptions(device="cpu", kv_bytes=kv_bytes))
    engine.start()
    requests = [raw(prompt, replace(GREEDY, max_tokens=90)) for prompt in PROMPTS]
    texts = await asyncio.gather(*(text_of(engine, request) for request in requests))
    engine.close()
    expected = [reference.text(reference.tokenizer.encode(p), 90) for p in PROMPTS]
    assert texts == expected


async def test_chat_goes_through_the_template(engine: LocalEngine, reference: Reference) -> None:
    request = GenerateRequest(messages=(Message("user", "the cat"),), sampling=GREEDY)
    rendered = "<|im_start|>user\nthe cat<|im_end|>\n<|im_start|>assistant\n"
    ids = reference.tokenizer.encode(rendered)
    prepared = engine.prepare(request)
    assert prepared.token_ids == tuple(ids)
    assert engine.prepare(GenerateRequest(prompt="the cat")).token_ids == tuple(ids)
    assert await text_of(engine, request) == reference.text(ids, 24)


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
    alone = await text_of(engine, raw("the cat", sampling))
    others = [raw(prompt, Sampling(max_tokens=20)) for prompt in PROMPTS]
    among, *_ = await asyncio.gather(
        *(text_of(engine, request) for request in [raw("the cat", sampling), *others])
    )
    assert among == alone
    assert await text_of(engine, raw("the cat", replace(sampling, seed=4))) != alone


async def test_no_seed_is_a_fresh_draw(engine: LocalEngine) -> None:
    request = raw("the cat", Sampling(max_tokens=30))
    assert await text_of(engine, request) != await text_of(engine, request)


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
    whole = await text_of(engine, raw("the cat"))
    stop = whole[5:8]
    chunks = await chunks_of(engine, raw("the cat", replace(GREEDY, stop=(stop,))))
    assert "".join(chunk.text for chunk in chunks) == whole[: whole.index(stop)]
    assert chunks[-1].finish_reason == "stop"


async def test_leaving_early_frees_the_engine_for_others(engine: LocalEngine) -> None:
    forever = raw("a", Sampling(temperature=3, max_tokens=200, seed=1))
    for _ in range(8):
        async with engine.submit(engine.prepare(forever)) as generation:
            await anext(aiter(generation))
    assert await text_of(engine, raw("the cat")) == await text_of(engine, raw("the cat"))


async def test_device_failure_reaches_every_reader(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = LocalOptions(device="cpu", max_num_sequences=2, runner="transformers")
    engine = LocalEngine(reference.folder, "tiny", options)
    engine.start()

    def fail(*_: object) -> None:
        raise RuntimeError("device lost")

    monkeypatch.setattr(Runner, "run", fail)
    errors = await asyncio.gather(
        *(text_of(engine, raw(prompt)) for prompt in PROMPTS), return_exceptions=True
    )
    assert [type(error) for error in errors] == [EngineDead] * len(PROMPTS)
    with pytest.raises(EngineDead):  # it began again, on the same device
        await text_of(engine, raw("a"))
    engine.close()


async def test_prompt_of_the_whole_context_is_too_long(engine: LocalEngine) -> None:
    request = raw("x y " * 40)
    num_tokens = engine.prepare(request).num_prompt_tokens
    with pytest.raises(PromptTooLong) as raised:
        engine.prepare(replace(request, context_length=num_tokens))
    assert (raised.value.num_tokens, raised.value.limit) == (num_tokens, num_tokens)
    assert engine.prepare(replace(request, context_length=num_tokens + 1)).max_tokens == 1
    with pytest.raises(PromptTooLong, match=f"context of {WINDOW} tokens"):
        engine.prepare(raw("x y " * 800))


async def test_prompt_of_a_million_tokens_is_refused_before_it_is_tokenised(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(*_: object) -> list[int]:
        raise AssertionError("tokenised")

    monkeypatch.setattr("servemu_engine.local.encode_request", encode)
    with pytest.raises(PromptTooLong, match=f"context of {WINDOW} tokens") as raised:
        engine.prepare(raw("word " * 1_000_000))
    assert raised.value.num_tokens > WINDOW


async def test_stand_in_sees_the_newest_tokens_of_a_prompt_beyond_its_window(
    engine: LocalEngine, reference: Reference
) -> None:
    prompt = "one two three " * 400
    ids = reference.tokenizer.encode(prompt)
    prepared = engine.prepare(replace(raw(prompt), context_length=8192))
    assert prepared.num_prompt_tokens == len(ids) > WINDOW
    assert prepared.token_ids == tuple(ids[-(WINDOW - 24) :])
    assert prepared.max_tokens == 24
    assert await text_of(engine, prepared.request) == reference.text(ids[-(WINDOW - 24) :], 24)


def test_own_window_ends_an_answer_the_played_model_would_go_on_with(engine: LocalEngine) -> None:
    unlimited = replace(raw("a", Sampling()), context_length=8192)
    assert engine.prepare(unlimited).max_tokens == WINDOW - 1


def test_template_error_is_an_invalid_prompt(engine: LocalEngine) -> None:
    with pytest.raises(InvalidPrompt, match="no tools"):
        engine.prepare(GenerateRequest(messages=(Message("tool", "x"),)))


def test_messages_without_a_template_become_lines(reference: Reference) -> None:
    tokenizer = train_tokenizer()
    tokenizer.chat_template = None
    request = GenerateRequest(messages=(Message("system", "be"), Message("user", "hi")))
    assert (
        tokenizer.decode(encode_request(tokenizer, request)) == "system: be\nuser: hi\nassistant:"
    )
    assert tokenizer.decode(encode_request(tokenizer, GenerateRequest(prompt="hi"))) == "hi"


def test_empty_raw_prompt_is_the_end_token_alone(reference: Reference) -> None:
    ids = encode_request(reference.tokenizer, raw(""))
    assert ids == [reference.tokenizer.eos_token_id]


def test_info_describes_what_was_loaded(engine: LocalEngine) -> None:
    info = engine.info
    assert (info.name, info.kind, info.architecture) == ("tiny", "local", "LlamaForCausalLM")
    assert (info.dtype, info.device, info.context_length) == ("float32", "cpu", WINDOW)
    assert info.num_bytes >= 4 * info.num_parameters > 0
    assert info.load_seconds > 0


def test_engine_that_is_not_started_or_closed_refuses(reference: Reference) -> None:
    engine = LocalEngine(reference.folder, "tiny", LocalOptions(device="cpu"))
    with pytest.raises(EngineClosed, match="'tiny' is not running"):
        engine.prepare(raw("a"))
    engine.start()
    engine.close()
    engine.close()
    with pytest.raises(EngineClosed):
        engine.prepare(raw("a"))


def test_cache_that_holds_no_sequence_is_a_failed_load(reference: Reference) -> None:
    engine = LocalEngine(reference.folder, "tiny", LocalOptions(device="cpu", kv_bytes=4096))
    with pytest.raises(LoadFailed, match=r"kv_bytes = 4096 holds 8 tokens"):
        engine.start()


def test_cache_is_sized_by_the_memory_that_is_free(reference: Reference) -> None:
    options = LocalOptions(
        device="cpu", num_models=2, free_memory=lambda device: {"cpu": 8192}[device]
    )
    engine = LocalEngine(reference.folder, "tiny", options)
    with pytest.raises(LoadFailed, match=r"kv_bytes = 3686 holds 7 tokens"):
        engine.start()


async def test_num_threads_holds_in_the_engines_thread_only(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    options = LocalOptions(device="cpu", num_threads=before + 1, runner="transformers")
    engine = LocalEngine(reference.folder, "tiny", options)
    engine.start()
    seen = []
    forward = Runner._forward

    def recording(self: Runner, ids: list[int], layout: Layout) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return forward(self, ids, layout)

    monkeypatch.setattr(Runner, "_forward", recording)
    await text_of(engine, raw("a", Sampling(max_tokens=2)))
    engine.close()
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before
