"""Five hundred requests of all kinds through a real engine whose device fails now and then: nothing
is lost, nobody gets another's tokens, memory stays flat."""

import asyncio
import gc
import random
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from servemu_engine.base import GenerateRequest, Sampling
from servemu_engine.errors import AnswerFailed, EngineDead, InvalidPrompt, PromptTooLong
from servemu_engine.local import LocalEngine, LocalOptions
from servemu_engine.runner import Runner
from servemu_engine.sampler import Sampled
from servemu_engine.scheduler import Row, Step

pytestmark = pytest.mark.anyio

NUM_REQUESTS = 500
SYSTEM = "You are a helpful assistant. Answer shortly and politely. "
Results = list[tuple[Row, Sampled]]


def write_model(folder: Path) -> None:
    """A Llama of one layer over bytes, window 256."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=257, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    fast.save_pretrained(folder)
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        initializer_range=0.3,
        eos_token_id=fast.eos_token_id,
        bos_token_id=None,
    )
    (folder / "config.json").write_text(config.to_json_string())
    state = {k: v.contiguous() for k, v in LlamaForCausalLM(config).state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


@dataclass
class Clock:
    """Moves a minute at each look, so that restarts are never refused."""

    time: float = 0.0

    def __call__(self) -> float:
        self.time += 61
        return self.time


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-soak")
    write_model(folder)
    return folder


@pytest.fixture
def engine(folder: Path) -> Iterator[LocalEngine]:
    options = LocalOptions(device="cpu", max_num_sequences=6, run_ahead=8, now=Clock())
    engine = LocalEngine(folder, "soak", options)
    engine.start()
    yield engine
    engine.close()


@dataclass(frozen=True)
class Case:
    """A request, and after how many chunks its reader leaves (never: 1000)."""

    request: GenerateRequest
    leaves_after: int


def cases(draw: random.Random) -> list[Case]:
    """Forty kinds, each asked several times, so that prompts repeat."""
    kinds = []
    for number in range(40):
        prompt = draw.choice(["", SYSTEM, SYSTEM]) + f"{number} " + "word " * draw.randrange(20)
        sampling = Sampling(
            max_tokens=draw.randrange(1, 16),
            temperature=draw.choice([0.0, 0.7, 1.5]),
            top_p=draw.choice([1.0, 0.8]),
            seed=number,
            stop=draw.choice([(), ("e",), ("ab", "q")]),
            logprobs=draw.random() < 0.2,
        )
        context = draw.choice([None, None, None, None, 8])
        kinds.append(
            GenerateRequest(
                prompt=prompt,
                use_chat_template=False,
                sampling=sampling,
                n=draw.choice([1, 1, 3]),
                context_length=context,
            )
        )
    return [
        Case(draw.choice(kinds), draw.choice([1000, 1000, 1000, 1, 3])) for _ in range(NUM_REQUESTS)
    ]


Answers = tuple[str, ...]


async def answers_of(engine: LocalEngine, case: Case) -> Answers | type[Exception] | None:
    """Texts by index; None when the reader left; or how it failed."""
    texts = [""] * case.request.n
    num_chunks = 0
    try:
        async with engine.submit(engine.prepare(case.request)) as generation:
            async for chunk in generation:
                texts[chunk.index] += chunk.text
                num_chunks += 1
                if num_chunks == case.leaves_after:
                    return None
    except (PromptTooLong, InvalidPrompt, AnswerFailed, EngineDead) as error:
        return type(error)
    return tuple(texts)


def assert_empty(engine: LocalEngine) -> None:
    """No sequence runs or waits, no answer is remembered, every slot is free."""
    assert engine._running is not None
    loop = engine._running.loop
    scheduler = loop._scheduler
    assert (loop._answers, scheduler.running, list(scheduler.waiting)) == ({}, [], [])
    assert all(slot.owner is None for slot in scheduler._slots._slots)


async def settled(engine: LocalEngine) -> None:
    """All that was cancelled is gone once a later request has been answered."""
    greedy = Sampling(max_tokens=1, temperature=0)
    request = GenerateRequest(prompt="x", use_chat_template=False, sampling=greedy)
    await answers_of(engine, Case(request, 1000))


async def test_soak(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(4)
    asked = cases(draw)
    alone: dict[int, Answers | type[Exception] | None] = {}
    for case in asked:
        if id(case.request) not in alone:
            alone[id(case.request)] = await answers_of(engine, Case(case.request, 1000))
    run = Runner.run
    num_steps = 0

    def failing(self: Runner, step: Step) -> Results:
        nonlocal num_steps
        num_steps += 1
        if num_steps % 97 == 0:
            raise RuntimeError("device lost")
        return run(self, step)

    monkeypatch.setattr(Runner, "run", failing)
    gate = asyncio.Semaphore(16)

    async def ask(case: Case) -> Answers | type[Exception] | None:
        async with gate:
            return await answers_of(engine, case)

    tracemalloc.start()
    got = list(await asyncio.gather(*map(ask, asked[:250])))
    await settled(engine)
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    got += await asyncio.gather(*map(ask, asked[250:]))
    await settled(engine)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    whole = [(g, alone[id(c.request)]) for g, c in zip(got, asked, strict=True) if g is not None]
    unlucky = [g for g, _ in whole if g is EngineDead]
    assert [g for g, _ in whole if g is not EngineDead] == [
        wanted for g, wanted in whole if g is not EngineDead
    ]
    assert 0 < len(unlucky) < NUM_REQUESTS / 2
    assert PromptTooLong in got and None in got
    assert after - before < 200_000
    assert_empty(engine)


async def test_request_whose_numbers_break_fails_alone_and_leaves_a_clean_slot(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    greedy = Sampling(max_tokens=12, temperature=0)
    good = GenerateRequest(prompt=SYSTEM, use_chat_template=False, sampling=greedy)
    bad = GenerateRequest(prompt="bad" * 30, use_chat_template=False, sampling=greedy)
    expected = await answers_of(engine, Case(good, 1000))
    bad_ids = engine.prepare(bad).token_ids
    run = Runner.run

    @torch.inference_mode()
    def poisoning(self: Runner, step: Step) -> Results:
        for row in step.rows:
            slot = row.sequence.slot
            values = self._cache.values[0]
            if row.sequence.prompt_ids == bad_ids and row.start and slot is not None:
                assert values is not None
                values[slot, :, : row.start] = torch.nan
        return run(self, step)

    monkeypatch.setattr(Runner, "run", poisoning)
    got = await asyncio.gather(*(answers_of(engine, Case(r, 1000)) for r in (good, bad, good)))
    assert got == [expected, AnswerFailed, expected]
    monkeypatch.setattr(Runner, "run", run)
    again = await asyncio.gather(*(answers_of(engine, Case(r, 1000)) for r in [good, bad] * 4))
    assert again[::2] == [expected] * 4
    assert AnswerFailed not in again
    assert_empty(engine)


async def test_engine_begins_again_after_its_device_failed_but_not_for_ever(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = [0.0]
    engine = LocalEngine(folder, "again", LocalOptions(device="cpu", now=lambda: seconds[0]))
    engine.start()
    greedy = Sampling(max_tokens=4, temperature=0)
    case = Case(GenerateRequest(prompt="a", use_chat_template=False, sampling=greedy), 1000)
    expected = await answers_of(engine, case)
    run = Runner.run

    def fail(self: Runner, step: Step) -> Results:
        raise RuntimeError("device lost")

    monkeypatch.setattr(Runner, "run", fail)
    failures = [await answers_of(engine, case) for _ in range(2)]
    monkeypatch.setattr(Runner, "run", run)
    assert (failures, await answers_of(engine, case)) == ([EngineDead] * 2, expected)
    monkeypatch.setattr(Runner, "run", fail)
    assert [await answers_of(engine, case) for _ in range(2)] == [EngineDead] * 2
    monkeypatch.setattr(Runner, "run", run)
    with pytest.raises(EngineDead, match="device lost"):
        engine.submit(engine.prepare(case.request))
    seconds[0] = 61.0
    assert await answers_of(engine, case) == expected
    engine.close()
