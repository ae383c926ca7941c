"""The engine's thread, with a device that answers what a test tells it to."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from servemu_engine.base import Chunk, Sampling
from servemu_engine.errors import EngineClosed, EngineDead
from servemu_engine.generation import LocalGeneration, Reader
from servemu_engine.loop import Answer, EngineLoop
from servemu_engine.sampler import Sampled, TokenScores
from servemu_engine.scheduler import Row, Scheduler, Step
from servemu_engine.sequence import Sequence as EngineSequence
from servemu_engine.slots import Capacity
from servemu_engine.stopping import AnswerText, StopRules, WindowDetokenizer

pytestmark = pytest.mark.anyio

END = 256


def decode(ids: Sequence[int]) -> str:
    return bytes(id for id in ids if id < END).decode("utf-8", "replace")


class Device:
    """Continues the alphabet from the last token; `before_step` is called with each step."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.before_step: Callable[[Step], None] = lambda step: None

    def run(self, step: Step) -> list[tuple[Row, Sampled]]:
        self.before_step(step)
        self.steps.append(step)
        return [
            (row, Sampled(row.sequence.tokens[-1] + 1, TokenScores(-0.5, ((65, -0.25),))))
            for row in step.rows
            if row.samples
        ]


class Engine:
    """A loop over the device, and what `LocalEngine.submit` does."""

    def __init__(self, max_slots: int = 2) -> None:
        self.device = Device()
        self.scheduler = Scheduler(Capacity(max_slots, 4096, 1024), prefill_chunk=64)
        self.loop = EngineLoop(self.scheduler, self.device, lambda token: bytes([token % 256]))

    def submit(
        self, prompt: bytes, max_tokens: int = 4, run_ahead: int = 1000, stop: tuple[str, ...] = ()
    ) -> LocalGeneration:
        reader = Reader(
            lambda chunk: self.loop.took(answer, chunk.num_tokens),
            lambda: self.loop.cancel([answer]),
        )
        generation = LocalGeneration(asyncio.get_running_loop(), 1, reader)
        sequence = EngineSequence(tuple(prompt), Sampling(), seed=0, run_ahead=run_ahead)
        rules = StopRules(frozenset({END}), stop, max_tokens)
        answer = Answer(sequence, AnswerText(WindowDetokenizer(decode, prompt), rules), generation)
        self.loop.submit([answer])
        return generation


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    engine.loop.start()
    yield engine
    engine.loop.close()


async def text_of(generation: LocalGeneration) -> str:
    async with generation:
        return "".join([chunk.text async for chunk in generation])


async def test_concurrent_answers_each_get_their_own_tokens(engine: Engine) -> None:
    generations = [engine.submit(prompt) for prompt in (b"a", b"ABC", b"0", b"k", b"R")]
    texts = await asyncio.gather(*(text_of(generation) for generation in generations))
    assert texts == ["bcde", "DEFG", "1234", "lmno", "STUV"]


async def test_chunks_carry_logprobs_of_their_tokens(engine: Engine) -> None:
    async with engine.submit(b"a", max_tokens=1) as generation:
        chunk = await anext(aiter(generation))
    assert [(e.text, e.raw, e.logprob) for e in chunk.logprobs] == [("b", b"b", -0.5)]
    assert [(e.text, e.logprob) for e in chunk.logprobs[0].top] == [("A", -0.25)]


async def test_held_back_tokens_are_counted_in_the_chunk_that_follows(engine: Engine) -> None:
    async with engine.submit(b"a", max_tokens=9, stop=("cdX", "hij")) as generation:
        chunks = [chunk async for chunk in generation]
    assert [(c.text, c.num_tokens, c.finish_reason) for c in chunks] == [
        ("b", 1, None),
        ("cde", 3, None),
        ("f", 1, None),
        ("g", 1, None),
        ("", 3, "stop"),
    ]


async def test_long_hold_still_tells_the_reader_how_many_tokens_ran(engine: Engine) -> None:
    async with engine.submit(b"a", 6, run_ahead=4, stop=("bcdefgh",)) as generation:
        chunks = [chunk async for chunk in generation]
    assert [(c.text, c.num_tokens) for c in chunks] == [("", 2), ("", 2), ("bcdefg", 2)]


async def test_answer_pauses_when_its_reader_stands_still_and_resumes(engine: Engine) -> None:
    slow = engine.submit(b"a", max_tokens=6, run_ahead=2)
    assert await text_of(engine.submit(b"A", max_tokens=20)) == "BCDEFGHIJKLMNOPQRSTU"
    prompt = tuple(b"a")
    rows = [row for step in engine.device.steps for row in step.rows]
    assert len([row for row in rows if row.sequence.prompt_ids == prompt]) == 2
    assert await text_of(slow) == "bcdefg"


async def test_leaving_frees_the_slot_for_the_next() -> None:
    engine = Engine(max_slots=1)
    engine.loop.start()
    async with engine.submit(b"a", max_tokens=1000) as generation:
        await anext(aiter(generation))
        second = engine.submit(b"A")
    assert await text_of(second) == "BCDE"
    engine.loop.close()
    assert (list(engine.scheduler.waiting), engine.scheduler.running) == ([], [])


async def test_cancelled_answer_is_not_in_the_step_after_and_its_slot_is_anothers() -> None:
    engine = Engine(max_slots=1)
    is_running, may_go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hold_the_third(step: Step) -> None:
        if len(engine.device.steps) == 2:
            loop.call_soon_threadsafe(is_running.set)
            may_go_on.wait()

    engine.device.before_step = hold_the_third
    engine.loop.start()
    async with engine.submit(b"a", max_tokens=1000):
        second = engine.submit(b"A")
        await is_running.wait()
    may_go_on.set()
    assert await text_of(second) == "BCDE"
    engine.loop.close()
    asked = [[row.sequence.prompt_ids for row in step.rows] for step in engine.device.steps]
    assert asked == [[tuple(b"a")]] * 3 + [[tuple(b"A")]] * 4


async def test_device_failure_fails_running_and_waiting_and_later_answers(engine: Engine) -> None:
    cause = RuntimeError("device lost")

    def fail(step: Step) -> None:
        if engine.device.steps:
            raise cause

    engine.device.before_step = fail
    generations = [engine.submit(prompt) for prompt in (b"a", b"b", b"waiting")]
    errors = await asyncio.gather(*map(text_of, generations), return_exceptions=True)
    assert [type(error) for error in errors] == [EngineDead] * 3
    assert all(isinstance(e, EngineDead) and e.__cause__ is cause for e in errors)
    assert len(set(map(id, errors))) == 3
    with pytest.raises(EngineDead, match="RuntimeError: device lost") as raised:
        engine.submit(b"c")
    assert raised.value.__cause__ is cause


async def test_text_before_the_failure_is_delivered(engine: Engine) -> None:
    def fail(step: Step) -> None:
        if len(engine.device.steps) == 2:
            raise RuntimeError("device lost")

    engine.device.before_step = fail
    seen = []
    with pytest.raises(EngineDead):
        async with engine.submit(b"a") as generation:
            async for chunk in generation:
                seen.append(chunk)
    assert seen == [Chunk(0, "b", 1, seen[0].logprobs), Chunk(0, "c", 1, seen[1].logprobs)]


async def test_close_fails_what_runs_and_what_comes_later(engine: Engine) -> None:
    paused = engine.submit(b"a", run_ahead=1)
    waiting = engine.submit(b"b", run_ahead=1)
    await anext(aiter(paused))
    await asyncio.to_thread(engine.loop.close)
    with pytest.raises(EngineClosed):
        await text_of(waiting)
    with pytest.raises(EngineClosed):
        engine.submit(b"c")
    engine.loop.close()


def test_answers_of_a_closed_event_loop_are_dropped(engine: Engine) -> None:
    async def abandon() -> None:
        engine.submit(b"a", max_tokens=1000)

    async def read() -> str:
        return await text_of(engine.submit(b"A"))

    asyncio.run(abandon())
    assert asyncio.run(read()) == "BCDE"
    assert asyncio.run(read()) == "BCDE"
