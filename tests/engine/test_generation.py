"""The bridge from an engine's thread to an event loop."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from servemu_engine.base import Chunk
from servemu_engine.errors import EngineDead
from servemu_engine.generation import Delivery, LocalGeneration, Reader, deliver

pytestmark = pytest.mark.anyio


class Record:
    """What the reader told the engine."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.num_left = 0

    def leave(self) -> None:
        self.num_left += 1

    def open(self, n: int = 1) -> LocalGeneration:
        reader = Reader(lambda chunk: self.taken.append(chunk.num_tokens), self.leave)
        return LocalGeneration(asyncio.get_running_loop(), n, reader)


@pytest.fixture
def record() -> Record:
    return Record()


def from_thread(*items: Delivery) -> list[LocalGeneration]:
    """Deliver as an engine does, from a thread that is not the event loop's."""
    unreachable: list[LocalGeneration] = []
    thread = threading.Thread(target=lambda: unreachable.extend(deliver(items)))
    thread.start()
    thread.join()
    return unreachable


async def test_chunks_arrive_in_order_and_end_with_the_finish_reason(record: Record) -> None:
    chunks = [Chunk(0, "a", 1), Chunk(0, "b", 2), Chunk(0, "", 1, finish_reason="stop")]
    async with record.open() as generation:
        from_thread(*((generation, chunk) for chunk in chunks))
        assert [chunk async for chunk in generation] == chunks
    assert (record.taken, record.num_left) == ([1, 2, 1], 0)


async def test_reader_waiting_before_the_first_chunk_is_woken(record: Record) -> None:
    async with record.open() as generation:
        waiting = asyncio.ensure_future(anext(aiter(generation)))
        await asyncio.sleep(0)
        from_thread((generation, Chunk(0, "a", 1)))
        assert await waiting == Chunk(0, "a", 1)


async def test_chunk_that_is_not_taken_is_not_acknowledged(record: Record) -> None:
    async with record.open() as generation:
        from_thread((generation, Chunk(0, "a", 1)), (generation, Chunk(0, "b", 1)))
        await anext(aiter(generation))
        assert record.taken == [1]


async def test_answers_of_one_generation_end_each_on_its_own(record: Record) -> None:
    first, second = (Chunk(i, "", 1, finish_reason="length") for i in (1, 0))
    async with record.open(n=2) as generation:
        from_thread((generation, first), (generation, Chunk(0, "x", 1)), (generation, second))
        assert [chunk async for chunk in generation] == [first, Chunk(0, "x", 1), second]
    assert record.num_left == 0


async def test_leaving_early_cancels_once(record: Record) -> None:
    async with record.open() as generation:
        from_thread((generation, Chunk(0, "a", 1)))
        await anext(aiter(generation))
    await generation.__aexit__()
    assert record.num_left == 1


async def test_cancelled_reader_cancels_the_answer(record: Record) -> None:
    async def read() -> None:
        async with record.open() as generation:
            async for _ in generation:
                pass

    task = asyncio.ensure_future(read())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert record.num_left == 1


async def test_error_is_raised_after_the_chunks_before_it_and_needs_no_cancel(
    record: Record,
) -> None:
    seen = []
    with pytest.raises(EngineDead, match="broken"):
        async with record.open() as generation:
            from_thread((generation, Chunk(0, "a", 1)), (generation, EngineDead("broken")))
            async for chunk in generation:
                seen.append(chunk)
    assert (seen, record.num_left) == ([Chunk(0, "a", 1)], 0)


async def test_iterating_after_the_end_stops_at_once(record: Record) -> None:
    async with record.open() as generation:
        from_thread((generation, Chunk(0, "a", 1, finish_reason="stop")))
        assert len([chunk async for chunk in generation]) == 1
        assert [chunk async for chunk in generation] == []


async def test_one_step_wakes_the_event_loop_once(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    calls = []
    call_soon = loop.call_soon_threadsafe

    def counting(callback: Callable[..., None], *args: object) -> asyncio.Handle:
        calls.append(callback)
        return call_soon(callback, *args)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counting)
    one, two = record.open(), record.open()
    deliver([(one, Chunk(0, "a", 1)), (two, Chunk(0, "b", 1))])
    assert len(calls) == 1
    assert [await anext(aiter(g)) for g in (one, two)] == [Chunk(0, "a", 1), Chunk(0, "b", 1)]


def test_generation_of_a_closed_loop_is_reported(record: Record) -> None:
    async def open_one() -> LocalGeneration:
        return record.open()

    generation = asyncio.run(open_one())
    assert deliver([(generation, Chunk(0, "a", 1))]) == [generation]
