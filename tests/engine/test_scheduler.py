"""Who is in the next step. Steps are written as {name: (start, count)} tables."""

from collections.abc import Callable

import pytest

from servemu_engine.base import Sampling
from servemu_engine.scheduler import Scheduler, Step
from servemu_engine.sequence import Sequence
from servemu_engine.slots import Capacity, Reshape

Table = dict[str, tuple[int, int]]


class Bench:
    """A scheduler with named sequences and a device that always answers token 0."""

    def __init__(self, capacity: Capacity, prefill_chunk: int, prefill_alone: int = 0) -> None:
        self.scheduler = Scheduler(capacity, prefill_chunk, prefill_alone)
        self.sequences: dict[str, Sequence] = {}

    def add(self, name: str, num_prompt: int, run_ahead: int = 1000) -> Sequence:
        """Prompts of different names have nothing in common."""
        token = len(self.sequences) + 1
        sequence = Sequence((token,) * num_prompt, Sampling(), seed=0, run_ahead=run_ahead)
        self.sequences[name] = sequence
        self.scheduler.add(sequence)
        return sequence

    def remove(self, name: str) -> None:
        self.scheduler.remove(self.sequences[name])

    def schedule(self) -> tuple[Step, Table]:
        step = self.scheduler.schedule()
        names = {sequence: name for name, sequence in self.sequences.items()}
        return step, {names[row.sequence]: (row.start, row.count) for row in step.rows}

    def step(self) -> Table:
        """Schedule, then do what the loop does after the device ran."""
        step, table = self.schedule()
        for row in step.rows:
            samples = row.samples
            row.sequence.num_cached += row.count
            if samples:
                row.sequence.tokens.append(0)
        return table

    @property
    def slots(self) -> dict[str, int]:
        return {n: s.slot for n, s in self.sequences.items() if s.slot is not None}


MakeBench = Callable[..., Bench]


@pytest.fixture
def bench() -> Bench:
    """Two slots of 16 tokens, four prompt tokens a step."""
    return Bench(Capacity(max_slots=2, kv_tokens=32, window=32, shortest=16), prefill_chunk=4)


def test_prompt_is_prefilled_in_chunks_then_decoded(bench: Bench) -> None:
    bench.add("a", 6)
    assert [bench.step() for _ in range(4)] == [
        {"a": (0, 4)},
        {"a": (4, 2)},
        {"a": (6, 1)},
        {"a": (7, 1)},
    ]


def test_decode_goes_first_and_prefill_fills_the_budget(bench: Bench) -> None:
    bench.add("a", 3)
    bench.add("b", 9)
    tables = [bench.step() for _ in range(4)]
    assert tables == [
        {"a": (0, 3), "b": (0, 1)},
        {"a": (3, 1), "b": (1, 4)},
        {"a": (4, 1), "b": (5, 4)},
        {"a": (5, 1), "b": (9, 1)},
    ]
    assert all(next(iter(table)) == "a" for table in tables)


def test_nobody_is_stalled_by_a_larger_chunk_while_nobody_decodes() -> None:
    bench = Bench(Capacity(2, kv_tokens=128, window=64, shortest=64), 4, prefill_alone=12)
    bench.add("a", 20)
    assert [bench.step() for _ in range(3)] == [{"a": (0, 12)}, {"a": (12, 8)}, {"a": (20, 1)}]
    bench.add("b", 20)
    assert bench.step() == {"a": (21, 1), "b": (0, 4)}


def test_short_prompts_are_not_behind_a_giant_and_the_giant_gets_its_half() -> None:
    bench = Bench(Capacity(4, kv_tokens=4000, window=1000, shortest=1000), prefill_chunk=16)
    bench.add("giant", 400)
    assert bench.step() == {"giant": (0, 16)}
    bench.add("b", 30)
    bench.add("c", 8)
    assert bench.step() == {"giant": (16, 8), "c": (0, 8)}
    tables = [bench.step() for _ in range(4)]
    assert [table["b"] for table in tables] == [(0, 8), (8, 8), (16, 8), (24, 6)]
    assert [table["giant"] for table in tables] == [(24, 8), (32, 8), (40, 8), (48, 10)]


@pytest.mark.parametrize("num_short", [1, 3, 15])
def test_oldest_prompt_is_done_in_a_bounded_number_of_steps(num_short: int) -> None:
    bench = Bench(Capacity(16, kv_tokens=16000, window=1000, shortest=1000), prefill_chunk=16)
    oldest = bench.add("oldest", 200)
    num_steps = 0
    while oldest.num_generated == 0:
        for number in range(num_short):
            bench.add(f"{num_steps}.{number}", 16)
        bench.step()
        num_steps += 1
    assert num_steps <= 200 / 8


def test_decoding_answers_get_a_token_in_every_step_however_much_is_prefilled() -> None:
    bench = Bench(Capacity(4, kv_tokens=4000, window=1000, shortest=1000), prefill_chunk=16)
    a = bench.add("a", 2)
    bench.step()
    bench.add("giant", 900)
    bench.add("other", 500)
    for num_generated in range(1, 20):
        assert a.num_generated == num_generated
        table = bench.step()
        assert sum(count for _, count in table.values()) <= 16 + 1


def giants(bench: Bench, *seconds: float) -> list[int]:
    """Its tokens in the next steps, which take so long."""
    sizes = []
    for each in seconds:
        step, table = bench.schedule()
        sizes.append(table["giant"][1])
        bench.scheduler.took(step, each)
    return sizes


def test_chunks_shrink_while_steps_are_slow_and_grow_again_to_what_was_asked() -> None:
    bench = Bench(Capacity(2, kv_tokens=8000, window=4000, shortest=4000), 512, prefill_alone=1024)
    bench.add("giant", 3900)
    sizes = giants(bench, 1.1, 1.1, 1.1, 1.1, 1.1, 0.5, 0.2, 0.2)
    assert sizes == [1024, 512, 256, 128, 64, 64, 64, 64]
    bench.add("answer", 1)
    sizes = giants(bench, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 1.1, 0.2)
    assert sizes == [64, 128, 256, 512, 512, 512, 512, 256]


def test_slow_steps_without_a_prompt_shrink_nothing() -> None:
    bench = Bench(Capacity(2, kv_tokens=8000, window=4000, shortest=4000), 512)
    bench.add("answer", 1)
    step, _ = bench.schedule()
    bench.scheduler.took(step, 9.0)
    bench.add("giant", 3000)
    assert bench.step()["giant"] == (0, 512)


def test_no_more_run_than_there_are_slots_and_the_rest_waits_in_order(bench: Bench) -> None:
    for name in ("a", "b", "c", "d"):
        bench.add(name, 2)
    assert bench.step() == {"a": (0, 2), "b": (0, 2)}
    bench.remove("a")
    assert bench.step() == {"b": (2, 1), "c": (0, 2)}
    assert bench.slots == {"b": 1, "c": 0}


def test_cancelled_while_waiting_never_runs(bench: Bench) -> None:
    for name in ("a", "b", "c", "d"):
        bench.add(name, 2)
    bench.step()
    bench.remove("c")
    bench.remove("b")
    assert bench.step() == {"a": (2, 1), "d": (0, 2)}


def test_removing_twice_is_ignored(bench: Bench) -> None:
    bench.add("a", 2)
    bench.step()
    bench.remove("a")
    bench.remove("a")
    assert (bench.step(), bench.scheduler.has_work) == ({}, False)


def test_decode_rows_come_by_slot_so_that_slots_lie_side_by_side() -> None:
    bench = Bench(Capacity(max_slots=3, kv_tokens=48, window=16, shortest=16), prefill_chunk=99)
    for name in ("a", "b", "c"):
        bench.add(name, 2)
    bench.step()
    bench.remove("a")
    bench.add("d", 2)
    bench.step()
    step, _ = bench.schedule()
    assert [row.sequence.slot for row in step.decode] == [0, 1, 2]
    assert bench.slots == {"b": 1, "c": 2, "d": 0}


def test_paused_sequence_is_left_out_until_it_is_read(bench: Bench) -> None:
    a = bench.add("a", 1, run_ahead=2)
    bench.add("b", 1)
    assert [bench.step() for _ in range(3)] == [
        {"a": (0, 1), "b": (0, 1)},
        {"a": (1, 1), "b": (1, 1)},
        {"b": (2, 1)},
    ]
    a.num_taken = 1
    assert bench.step() == {"a": (2, 1), "b": (3, 1)}


def test_there_is_no_work_when_all_are_paused(bench: Bench) -> None:
    a = bench.add("a", 1, run_ahead=1)
    assert bench.scheduler.has_work
    bench.step()
    assert not bench.scheduler.has_work
    a.num_taken = 1
    assert bench.scheduler.has_work


def test_paused_sequence_gives_its_slot_to_a_waiting_one_and_is_prefilled_again(
    bench: Bench,
) -> None:
    a = bench.add("a", 2, run_ahead=1)
    bench.add("b", 2)
    bench.step()
    bench.add("c", 2)
    assert bench.step() == {"b": (2, 1), "c": (0, 2)}
    a.num_taken = 1
    bench.remove("b")
    assert bench.step() == {"c": (2, 1), "a": (0, 3)}


def test_who_lost_its_slot_is_the_first_in_line_once_half_of_its_lead_is_read(
    bench: Bench,
) -> None:
    a = bench.add("a", 2, run_ahead=4)
    bench.add("b", 2)
    for _ in range(4):
        bench.step()
    for name in ("c", "d", "e"):
        bench.add(name, 2)
    assert bench.step() == {"b": (5, 1), "c": (0, 2)}
    a.num_taken = 1
    bench.remove("b")
    assert bench.step() == {"c": (2, 1), "d": (0, 2)}
    a.num_taken = 2
    bench.remove("c")
    assert bench.step() == {"d": (2, 1), "a": (0, 4)}
    assert bench.step() == {"d": (3, 1), "a": (4, 2)}


def test_nobody_looks_for_a_slot_while_those_without_one_have_enough_to_read(bench: Bench) -> None:
    a = bench.add("a", 1, run_ahead=2)
    bench.step()
    bench.step()
    for name in ("b", "c"):
        bench.add(name, 1)
    bench.step()
    for name in ("b", "c"):
        bench.remove(name)
    assert not bench.scheduler.has_work
    a.num_taken = 1
    assert bench.step() == {"a": (0, 3)}


def test_paused_sequence_keeps_its_slot_while_nobody_waits(bench: Bench) -> None:
    bench.add("a", 2, run_ahead=1)
    bench.step()
    bench.step()
    assert bench.slots == {"a": 0}


def test_cache_grows_before_a_sequence_outgrows_its_slot() -> None:
    capacity = Capacity(max_slots=4, kv_tokens=64, window=64, shortest=16)
    bench = Bench(capacity, prefill_chunk=99)
    bench.add("a", 15)
    first, _ = bench.schedule()
    assert first.reshape == Reshape(4, 16, ())
    bench.sequences["a"].num_cached = 15
    bench.sequences["a"].tokens += [0, 0]
    bench.sequences["a"].num_cached = 16
    second, table = bench.schedule()
    assert (second.reshape, table) == (Reshape(2, 32, (0,), (16,)), {"a": (16, 1)})


def test_newest_leaves_when_longer_slots_are_fewer_and_comes_back_first() -> None:
    bench = Bench(Capacity(2, kv_tokens=32, window=32, shortest=16), prefill_chunk=99)
    bench.add("a", 15)
    bench.add("b", 2)
    bench.step()
    bench.step()
    bench.add("c", 1)
    assert bench.step() == {"a": (16, 1)}
    assert list(bench.scheduler.waiting) == [bench.sequences["b"], bench.sequences["c"]]
    bench.remove("a")
    assert bench.step() == {"b": (0, 4), "c": (0, 1)}


def test_long_prompt_waits_until_its_slot_length_is_affordable() -> None:
    bench = Bench(Capacity(2, kv_tokens=32, window=32, shortest=16), prefill_chunk=99)
    bench.add("a", 2)
    bench.add("long", 20)
    bench.add("c", 2)
    assert bench.step() == {"a": (0, 2)}
    bench.remove("a")
    step, table = bench.schedule()
    assert (step.reshape, table) == (Reshape(1, 32, (0,), (2,)), {"long": (0, 20)})


def test_cache_shrinks_again_when_more_short_ones_want_to_run() -> None:
    bench = Bench(Capacity(2, kv_tokens=32, window=32, shortest=16), prefill_chunk=99)
    bench.add("long", 20)
    bench.add("b", 2)
    bench.add("c", 2)
    assert bench.step() == {"long": (0, 20)}
    bench.remove("long")
    step, table = bench.schedule()
    assert (step.reshape, table) == (Reshape(2, 16, (0,), (0,)), {"b": (0, 2), "c": (0, 2)})


def test_two_changes_in_one_step_move_each_slot_once() -> None:
    bench = Bench(Capacity(4, kv_tokens=128, window=64, shortest=16), prefill_chunk=99)
    bench.add("a", 2)
    bench.add("b", 15)
    bench.step()
    bench.step()
    bench.remove("a")
    bench.add("c", 40)
    step, table = bench.schedule()
    assert (step.reshape, table) == (Reshape(2, 64, (1, 0), (16, 3)), {"b": (16, 1), "c": (0, 40)})


@pytest.mark.parametrize(
    ("num_tokens", "length", "slots"),
    [(1, 1024, 32), (1024, 1024, 32), (1025, 2048, 16), (5000, 6000, 5), (6000, 6000, 5)],
)
def test_capacity_trades_slots_for_length(num_tokens: int, length: int, slots: int) -> None:
    capacity = Capacity(max_slots=32, kv_tokens=32768, window=6000)
    assert capacity.length_for(num_tokens) == length
    assert capacity.slots_for(length) == slots
