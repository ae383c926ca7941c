"""Five hundred requests of all kinds through a real engine whose device fails now and then: nothing
is lost, nobody gets another's tokens, memory stays flat."""

import asyncio
import gc
import random
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from servemu_engine.base import GenerateRequest, Sampling
from servemu_engine.errors import AnswerFailed, EngineDead, InvalidPrompt, PromptTooLong
from servemu_engine.local import LocalEngine, LocalOptions
from servemu_engine.runner import Runner
from servemu_engine.runners import CheckedRunner, RunnerChoice
from servemu_engine.sampler import Sampled
from servemu_engine.scheduler import Row, Scheduler, Step

pytestmark = pytest.mark.anyio

NUM_REQUESTS = 500
SYSTEM = "You are a helpful assistant. Answer shortly and politely. "
Results = Sequence[tuple[Row, Sampled]]


@dataclass
class Clock:
    """Moves a minute at each look, so that restarts are never refused."""

    time: float = 0.0

    def __call__(self) -> float:
        self.time += 61
        return self.time


@pytest.fixture(scope="module")
def folder(byte_llama: Callable[..., Path]) -> Path:
    """A Llama of one layer over bytes, window 256."""
    return byte_llama("tiny-soak", max_position_embeddings=256, initializer_range=0.3)


Start = Callable[[RunnerChoice], LocalEngine]


@pytest.fixture
def start(folder: Path, compiled_libraries: Path) -> Iterator[Start]:
    """Starts an engine of eight slots."""
    started: list[LocalEngine] = []

    def start(runner: RunnerChoice) -> LocalEngine:
        engine = LocalEngine(
            folder,
            "soak",
            LocalOptions(
                device="cpu",
                max_num_sequences=8,
                run_ahead=8,
                num_threads=1,
                now=Clock(),
                runner=runner,
                compiled=compiled_libraries,
            ),
        )
        engine.start()
        started.append(engine)
        return engine

    yield start
    for engine in started:
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
            max_tokens=draw.randrange(1, 12),
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


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The slots of each step that are not those of who runs, of every engine's life: one that is
    lost would be found again by the next restart."""
    lost: list[int] = []
    schedule = Scheduler.schedule

    def watched(self: Scheduler) -> Step:
        step = schedule(self)
        owners = Counter(slot.owner for slot in self._slots._slots if slot.owner is not None)
        lost.append((owners - Counter(self.running)).total())
        lost.append((Counter(self.running) - owners).total())
        return step

    monkeypatch.setattr(Scheduler, "schedule", watched)
    return lost


def num_tensors() -> int:
    """What `tracemalloc` does not see is behind them."""
    gc.collect()
    return sum(type(found) is torch.Tensor for found in gc.get_objects())


@pytest.mark.parametrize("choice", ["transformers", "compiled"])
async def test_soak(
    choice: RunnerChoice, start: Start, lost: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start(choice)
    assert engine._running is not None
    runner = type(engine._running.runner)
    draw = random.Random(4)
    asked = cases(draw)
    alone: dict[int, Answers | type[Exception] | None] = {}
    for case in asked:
        if id(case.request) not in alone:
            alone[id(case.request)] = await answers_of(engine, Case(case.request, 1000))
    run = runner.run
    num_steps = 0

    def failing(self: CheckedRunner, step: Step) -> Results:
        nonlocal num_steps
        num_steps += 1
        if num_steps % 97 == 0:
            raise RuntimeError("device lost")
        return run(self, step)

    monkeypatch.setattr(runner, "run", failing)
    gate = asyncio.Semaphore(16)

    async def ask(case: Case) -> Answers | type[Exception] | None:
        async with gate:
            return await answers_of(engine, case)

    got = list(await asyncio.gather(*map(ask, asked[:250])))
    await settled(engine)
    tensors = num_tensors()
    tracemalloc.start()
    got += await asyncio.gather(*map(ask, asked[250:]))
    await settled(engine)
    gc.collect()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    whole = [(g, alone[id(c.request)]) for g, c in zip(got, asked, strict=True) if g is not None]
    unlucky = [g for g, _ in whole if g is EngineDead]
    assert [g for g, _ in whole if g is not EngineDead] == [
        wanted for g, wanted in whole if g is not EngineDead
    ]
    assert 0 < len(unlucky) < NUM_REQUESTS / 2
    assert PromptTooLong in got and None in got
    assert grown < 200_000
    assert num_tensors() <= tensors
    assert lost and not any(lost)
    assert_empty(engine)


async def test_request_whose_numbers_break_fails_alone_and_leaves_a_clean_slot(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start("transformers")
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
    options = LocalOptions(device="cpu", now=lambda: seconds[0], runner="transformers")
    engine = LocalEngine(folder, "again", options)
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
