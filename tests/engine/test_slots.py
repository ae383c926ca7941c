"""Prompts that begin alike are run once: which tokens come from another slot, and that they are
the right ones, on a device that is a table of tokens."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemu_engine.base import Sampling
from servemu_engine.scheduler import Scheduler, Step
from servemu_engine.sequence import Sequence as EngineSequence
from servemu_engine.slots import Capacity, Copy, Reshape, num_common

ROOMY = Capacity(max_slots=8, kv_tokens=8000, window=1000, shortest=1000)


class Device:
    """Does what a step says to slots of tokens, and checks that no row reads a wrong one."""

    def __init__(self, capacity: Capacity = ROOMY, prefill_chunk: int = 64) -> None:
        self.scheduler = Scheduler(capacity, prefill_chunk)
        self.slots: list[list[int]] = []
        self.num_run = 0
        """Tokens that went through the model."""

    def add(self, tokens: Sequence[int], run_ahead: int = 1000) -> EngineSequence:
        sequence = EngineSequence(tuple(tokens), Sampling(), seed=0, run_ahead=run_ahead)
        self.scheduler.add(sequence)
        return sequence

    def step(self) -> Step:
        step = self.scheduler.schedule()
        if step.reshape is not None:
            self.reshape(step.reshape)
        for copy in step.copies:
            assert len(self.slots[copy.source]) >= copy.count
            self.slots[copy.target] = self.slots[copy.source][: copy.count]
        for row in step.rows:
            self.run(row.sequence, row.start, row.count)
        return step

    def reshape(self, change: Reshape) -> None:
        pairs = zip(change.sources, change.lengths, strict=True) if change.sources else ()
        kept = [self.slots[source][:length] if source >= 0 else [] for source, length in pairs]
        self.slots = kept + [[] for _ in range(change.num_slots - len(kept))]

    def run(self, sequence: EngineSequence, start: int, count: int) -> None:
        assert sequence.slot is not None
        assert self.slots[sequence.slot][:start] == sequence.tokens[:start]
        self.slots[sequence.slot] = sequence.tokens[: start + count]
        self.num_run += count
        sequence.num_cached += count
        if sequence.num_pending == 0:
            sequence.tokens.append(sum(sequence.tokens) % 3)


def test_second_of_two_alike_waits_and_has_one_token_left_to_run() -> None:
    device = Device()
    first, second = device.add(range(50)), device.add(range(50))
    device.step()
    assert (first.num_generated, second.slot) == (1, None)
    step = device.step()
    assert step.copies == (Copy(0, 1, 49),)
    assert [(row.sequence, row.start, row.count) for row in step.decode] == [
        (first, 50, 1),
        (second, 49, 1),
    ]
    assert device.num_run == 50 + 2


def test_prompt_shares_the_system_part_of_another_and_runs_its_own() -> None:
    device = Device()
    device.add([*range(40), 100, 101])
    other = device.add([*range(40), 200, 201, 202])
    device.step()
    step = device.step()
    assert step.copies == (Copy(0, 1, 40),)
    assert [(row.sequence, row.start, row.count) for row in step.prefill] == [(other, 40, 3)]


def test_few_tokens_in_common_are_not_waited_for() -> None:
    device = Device()
    device.add([*range(10), 100])
    device.add([*range(10), 200])
    assert (len(device.step().prefill), device.num_run) == (2, 22)


def test_nobody_waits_for_a_prompt_that_no_longer_runs() -> None:
    device = Device(prefill_chunk=8)
    first, second = device.add(range(100)), device.add(range(100))
    device.step()
    device.scheduler.remove(first)
    step = device.step()
    assert [row.sequence for row in step.prefill] == [second]


def test_thirty_two_prompts_with_one_system_part_run_it_once() -> None:
    capacity = Capacity(max_slots=32, kv_tokens=32000, window=1000, shortest=1000)
    device = Device(capacity, prefill_chunk=4096)
    for number in range(32):
        device.add([*range(60), 1000 + number, 7])
    device.step()
    device.step()
    assert all(s.num_generated for s in device.scheduler.running)
    assert device.num_run == 62 + 31 * 2 + 1


def test_finished_answer_leaves_its_slot_to_the_next_turn_of_the_chat() -> None:
    device = Device()
    first = device.add(range(40))
    for _ in range(5):
        device.step()
    device.scheduler.remove(first)
    second = device.add([*first.tokens, 7, 8, 9])
    step = device.step()
    assert step.copies == ()
    assert second.slot == 0
    assert [(row.start, row.count) for row in step.rows] == [(44, 4)]


def test_oldest_idle_slot_is_used_again_first() -> None:
    device = Device(Capacity(max_slots=2, kv_tokens=2000, window=1000, shortest=1000))
    for start in (0, 100):
        device.scheduler.remove(_run_one(device, range(start, start + 40)))
    device.scheduler.remove(_run_one(device, range(200, 240)))
    assert _run_one(device, range(100, 140)).num_generated == 1
    assert device.num_run == 3 * 40 + 1


def test_only_so_many_slots_are_written_to_when_one_runs_at_a_time() -> None:
    capacity = Capacity(max_slots=32, kv_tokens=32000, window=1000, shortest=1000)
    device = Device(capacity)
    for start in range(0, 4000, 40):
        device.scheduler.remove(_run_one(device, range(start, start + 40)))
    assert sum(bool(tokens) for tokens in device.slots) == 8


def test_slots_in_use_lie_side_by_side() -> None:
    device = Device()
    for start in (0, 100, 200):
        device.scheduler.remove(_run_one(device, range(start, start + 40)))
    for start in (300, 400, 500):
        device.add(range(start, start + 40))
    device.step()
    device.step()
    slots = sorted(s.slot for s in device.scheduler.running if s.slot is not None)
    assert slots == list(range(slots[0], slots[0] + 3))


def test_broken_slot_is_shared_with_nobody() -> None:
    device = Device()
    device.scheduler.remove(_run_one(device, range(40)), broken=True)
    before = device.num_run
    _run_one(device, range(40))
    assert device.num_run - before == 40


def _run_one(device: Device, tokens: Sequence[int]) -> EngineSequence:
    sequence = device.add(tokens)
    while sequence.num_generated == 0:
        device.step()
    return sequence


@pytest.mark.parametrize(
    ("one", "other", "most", "common"),
    [
        ([], [1], 0, 0),
        ([1, 2], [1, 2], 1, 1),
        ([1, 2, 3], [1, 2, 4], 3, 2),
        ([*range(200)], [*range(200)], 199, 199),
        ([*range(130), 0], [*range(130), 1], 131, 130),
    ],
)
def test_common_tokens_are_counted(
    one: list[int], other: list[int], most: int, common: int
) -> None:
    assert num_common(one, other, most) == common


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ask", "ask", "step", "step", "leave", "read"]),
            st.integers(0, 3),
            st.integers(1, 70),
            st.integers(0, 30),
        ),
        max_size=60,
    )
)
def test_whatever_happens_each_row_finds_its_own_tokens_and_all_end(
    events: list[tuple[str, int, int, int]],
) -> None:
    device = Device(Capacity(4, kv_tokens=320, window=160, shortest=40), prefill_chunk=24)
    asked: list[EngineSequence] = []
    for kind, system, length, number in events:
        if kind == "ask":
            begin = [system] * min(length, 40)
            asked.append(device.add([*begin, *range(number, number + 5)], run_ahead=20))
        elif kind == "step":
            device.step()
        elif asked and kind == "leave":
            device.scheduler.remove(asked.pop(number % len(asked)))
        elif asked:
            asked[number % len(asked)].num_taken = asked[number % len(asked)].num_generated
    for _ in range(2000):
        if not asked:
            break
        device.step()
        for sequence in asked:
            sequence.num_taken = sequence.num_generated
        for sequence in [s for s in asked if s.num_generated >= 50]:
            asked.remove(sequence)
            device.scheduler.remove(sequence)
    assert (asked, device.scheduler.running, list(device.scheduler.waiting)) == ([], [], [])
