"""What holds whichever runner serves: a prompt has one answer, whoever else is there."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from tests.generated import answer_of
from transformers import AutoTokenizer, LlamaForCausalLM

from servemu_engine.base import GenerateRequest, JsonAnswer, Sampling
from servemu_engine.compiled import CompiledRunner
from servemu_engine.errors import AnswerFailed, EngineDead
from servemu_engine.generation import LocalGeneration
from servemu_engine.local import LocalEngine, LocalOptions
from servemu_engine.runner import Runner
from servemu_engine.scheduler import Scheduler, Step

pytestmark = pytest.mark.anyio

NUM_TOKENS = 24
BROKEN = "~"
"""Its token is made to give no numbers."""
PROMPTS = (
    "a",
    "the cat sat on the mat and looked at the dog",
    "naïve café 日本語",
    "x" * 120,
    "where is the dog? " * 9,
    "7 times 6",
    "on the mat, the cat",
    "lorem ipsum dolor sit amet",
)
LONG = ("one two three " * 73, "four five six " * 72)
"""1,022 and 1,008 tokens: they outgrow slots of 1,024."""
KV_BYTES = 4000 * 512
"""Two slots of 1,024 tokens, and one of 2,048."""

Start = Callable[..., LocalEngine]
Seen = tuple[tuple[int, ...], int, int]
"""Prompt of a row, its start and its count."""


@pytest.fixture(scope="module")
def folder(byte_llama: Callable[..., Path]) -> Path:
    return byte_llama(
        "alike",
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.2,
    )


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, str]:
    """The answers of transformers' own `generate`."""
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def text(prompt: str) -> str:
        ids = tokenizer.encode(prompt)
        output = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=NUM_TOKENS,
            do_sample=False,
            pad_token_id=0,
        )
        return str(tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True))

    texts = {prompt: text(prompt) for prompt in (*PROMPTS, *LONG)}
    assert not any(BROKEN in text for text in texts.values())
    return texts


@pytest.fixture(params=["transformers", "compiled"])
def start(request: Any, folder: Path, compiled_libraries: Path) -> Iterator[Start]:
    """Starts an engine of the runner."""
    started: list[LocalEngine] = []

    def start(**options: Any) -> LocalEngine:
        runner = {"runner": request.param, "compiled": compiled_libraries}
        engine = LocalEngine(folder, "alike", LocalOptions(device="cpu", **runner, **options))
        started.append(engine)
        engine.start()
        assert engine.info.runner == request.param
        return engine

    before = torch.get_num_threads()
    yield start
    for engine in started:
        engine.close()
    torch.set_num_threads(before)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Step, list[Seen]]]:
    """Each step, and its rows as they were then."""
    seen: list[tuple[Step, list[Seen]]] = []
    schedule = Scheduler.schedule

    def recording(self: Scheduler) -> Step:
        step = schedule(self)
        seen.append((step, [(r.sequence.prompt_ids, r.start, r.count) for r in step.rows]))
        return step

    monkeypatch.setattr(Scheduler, "schedule", recording)
    return seen


def raw(prompt: str, **sampling: Any) -> GenerateRequest:
    drawn = Sampling(**{"temperature": 0, "max_tokens": NUM_TOKENS, **sampling})
    return GenerateRequest(prompt=prompt, use_chat_template=False, sampling=drawn)


async def read(generation: LocalGeneration) -> str:
    async with generation:
        return "".join([chunk.text async for chunk in generation])


async def texts_of(engine: LocalEngine, *prompts: str) -> list[str]:
    return await asyncio.gather(*(answer_of(engine, raw(prompt)) for prompt in prompts))


async def test_greedy_alone_and_in_a_full_batch_is_what_generate_gives(
    start: Start, expected: dict[str, str], steps: list[tuple[Step, list[Seen]]]
) -> None:
    engine = start(max_num_sequences=len(PROMPTS))
    assert [(await texts_of(engine, prompt))[0] for prompt in PROMPTS] == [
        expected[prompt] for prompt in PROMPTS
    ]
    sampled = [answer_of(engine, raw(prompt, temperature=2, seed=1)) for prompt in PROMPTS]
    texts, *_ = await asyncio.gather(texts_of(engine, *PROMPTS), *sampled)
    assert texts == [expected[prompt] for prompt in PROMPTS]
    assert {1, len(PROMPTS)} <= {len(step.decode) for step, _ in steps}


async def test_greedy_goes_on_alike_after_its_slot_was_taken_away(
    start: Start, expected: dict[str, str], steps: list[tuple[Step, list[Seen]]]
) -> None:
    engine = start(kv_bytes=KV_BYTES)
    assert await texts_of(engine, *LONG) == [expected[prompt] for prompt in LONG]
    second = engine.prepare(raw(LONG[1])).token_ids
    starts = [start for _, rows in steps for prompt, start, _ in rows if prompt == second]
    assert starts != sorted(starts)


async def test_greedy_that_lost_its_slot_is_alike_where_its_beginning_is_anothers(
    start: Start, expected: dict[str, str], steps: list[tuple[Step, list[Seen]]]
) -> None:
    """Both begin alike and outgrow their slots: who comes back has a prefix of the other's."""
    engine = start(kv_bytes=KV_BYTES)
    asked = [LONG[0], LONG[1], LONG[0]]
    assert await texts_of(engine, *asked) == [expected[prompt] for prompt in asked]
    assert await texts_of(engine, *asked) == [expected[prompt] for prompt in asked]
    ids = engine.prepare(raw(LONG[0])).token_ids
    starts = [start for _, rows in steps for prompt, start, _ in rows if prompt == ids]
    assert starts != sorted(starts)
    assert any(step.copies for step, _ in steps)


async def test_greedy_is_alike_where_the_prompt_begins_in_the_cache(
    start: Start, expected: dict[str, str], steps: list[tuple[Step, list[Seen]]]
) -> None:
    engine = start()
    prompt = PROMPTS[4]
    assert await texts_of(engine, prompt) == [expected[prompt]]
    first = len(steps)
    assert await texts_of(engine, prompt) == [expected[prompt]]
    assert [rows[0][1:] for _, rows in steps[first : first + 1]] == [(len(prompt) - 1, 1)]
    assert await texts_of(engine, prompt, prompt, prompt) == [expected[prompt]] * 3
    assert any(step.copies for step, _ in steps)


async def test_greedy_is_alike_while_others_are_prefilled_in_pieces(
    start: Start, expected: dict[str, str], steps: list[tuple[Step, list[Seen]]]
) -> None:
    engine = start(prefill_chunk=16, prefill_alone=16)
    asked = [PROMPTS[0], *LONG, *PROMPTS[1:]]
    assert await texts_of(engine, *asked) == [expected[prompt] for prompt in asked]
    assert any(step.decode and len(step.prefill) > 1 for step, _ in steps)


async def test_json_answer_validates_beside_free_ones(
    start: Start, expected: dict[str, str]
) -> None:
    engine = start()
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["Ann", "Ben"]}, "ages": {"type": "array", "items": {}}},
        "required": ["name", "ages"],
    }
    asked = GenerateRequest(
        prompt="json", sampling=Sampling(seed=3), json_answer=JsonAnswer(schema)
    )
    text, *free = await asyncio.gather(
        answer_of(engine, asked), *(answer_of(engine, raw(prompt)) for prompt in PROMPTS)
    )
    jsonschema.validate(json.loads(text), schema)
    assert free == [expected[prompt] for prompt in PROMPTS]


def embedding_of(runner: object) -> torch.Tensor:
    """[vocab, hidden]"""
    if isinstance(runner, CompiledRunner):
        return runner.packed.tensors["embedding"]
    assert isinstance(runner, Runner)
    weight: torch.Tensor = runner._model.get_input_embeddings().weight
    return weight


async def test_answer_without_numbers_fails_alone_and_leaves_a_clean_slot(
    start: Start, expected: dict[str, str]
) -> None:
    engine = start(max_num_sequences=2)
    assert engine._running is not None
    weight = embedding_of(engine._running.runner)
    token = engine.prepare(raw(BROKEN)).token_ids[0]
    good = weight[token].clone()
    with torch.inference_mode():
        weight[token] = torch.nan
    wrong = "bad " * 20 + BROKEN
    asked = [wrong, PROMPTS[1], wrong, PROMPTS[2], PROMPTS[3]]
    texts = await asyncio.gather(
        *(answer_of(engine, raw(prompt)) for prompt in asked), return_exceptions=True
    )
    assert [text for text in texts if isinstance(text, str)] == [
        expected[prompt] for prompt in asked if prompt != wrong
    ]
    assert [type(texts[place]) for place in (0, 2)] == [AnswerFailed] * 2
    with torch.inference_mode():
        weight[token] = good
    assert await texts_of(engine, wrong, *PROMPTS) == [
        *await texts_of(engine, wrong),
        *(expected[prompt] for prompt in PROMPTS),
    ]


async def test_engine_that_begins_again_answers_as_before(
    start: Start, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start()
    assert engine._running is not None
    runner = type(engine._running.runner)
    run = runner.run
    left = 3
    all_asked = threading.Event()

    def failing(self: object, step: Step) -> object:
        nonlocal left
        all_asked.wait()
        left -= 1
        if left == 0:
            raise RuntimeError("device lost")
        return run(self, step)  # type: ignore[arg-type]  # of whichever runner it is

    monkeypatch.setattr(runner, "run", failing)
    asked = [engine.submit(engine.prepare(raw(prompt))) for prompt in PROMPTS]
    all_asked.set()
    lost = await asyncio.gather(*map(read, asked), return_exceptions=True)
    assert {type(error) for error in lost} == {EngineDead}
    assert await texts_of(engine, *PROMPTS) == [expected[prompt] for prompt in PROMPTS]
