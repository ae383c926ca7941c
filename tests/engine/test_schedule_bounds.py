"""What the scheduler promises, over whatever happens: who gets what in each step, and that nobody
is forgotten, starved, or in a slot that is another's."""

import random
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemu_engine.base import Sampling
from servemu_engine.prefixes import BLOCK, Prefixes, extend_keys
from servemu_engine.scheduler import Scheduler, Step
from servemu_engine.sequence import Sequence
from servemu_engine.slots import Capacity

CHUNK = 24
ALONE = 40
KV_TOKENS = 240
"""Five slots of 40 tokens, three of 80, one of 160: answers outgrow them and the newest leave."""
MOST = 12
"""Tokens of an answer."""
Event = tuple[str, int]


class Watched:
    """A scheduler whose steps are checked, with a device that names the next token by hashing all
    that it finds in the slot: a wrong slot or place shows in the text."""

    def __init__(self) -> None:
        self.scheduler = Scheduler(Capacity(5, KV_TOKENS, 160, shortest=40), CHUNK, ALONE)
        self.slots: list[list[int]] = []
        self.asked: list[Sequence] = []

    def add(self, number: int) -> Sequence:
        draw = random.Random(number)
        system = [7] * draw.choice([0, 0, 20, 33])
        own = [draw.randrange(100, 200) for _ in range(draw.choice([1, 4, 30, 35, 70, 100]))]
        sequence = Sequence((*system, *own), Sampling(), 0, run_ahead=draw.choice([1, 4, 100]))
        self.asked.append(sequence)
        self.scheduler.add(sequence)
        return sequence

    def drop(self, sequence: Sequence) -> None:
        self.asked.remove(sequence)
        self.scheduler.remove(sequence)

    def read(self, sequence: Sequence) -> None:
        sequence.num_taken = sequence.num_generated

    def step(self) -> Step:
        had_work = self.scheduler.has_work
        before = [s for s in self.scheduler.running if s.num_pending == 1 and not s.is_paused]
        step = self.scheduler.schedule()
        self.check(step, before)
        assert bool(step.rows) is had_work
        self.do(step)
        return step

    def check(self, step: Step, decoding: list[Sequence]) -> None:
        rows = {row.sequence: row for row in step.rows}
        running = self.scheduler.running
        assert len(rows) == len(step.rows)
        assert Counter([*running, *self.scheduler.waiting]) == Counter(self.asked)
        assert len({s.slot for s in running}) == len(running)
        assert all(s.slot is None for s in self.scheduler.waiting)
        assert not any(sequence.is_paused for sequence in rows)
        # A token for each who decodes, unless the memory is gone; then it was the newest.
        stalled = [s for s in decoding if s not in rows]
        assert all(s.slot is None for s in stalled)
        kept = [s for s in decoding if s.slot is not None]
        assert decoding[: len(kept)] == kept or not stalled
        # Of the prompt tokens, half is for the oldest.
        budget = CHUNK if step.decode else ALONE
        assert sum(row.count for row in step.prefill) <= budget
        filling = [s for s in running if s.num_pending > 1 and not s.is_paused]
        if filling:
            assert rows[filling[0]].count >= min(filling[0].num_pending, budget // 2)
            wanted = sum(s.num_pending for s in filling)
            assert sum(row.count for row in step.prefill) == min(budget, wanted)

    def do(self, step: Step) -> None:
        if step.reshape is not None:
            pairs = zip(step.reshape.sources, step.reshape.lengths, strict=True)
            kept = [self.slots[source][:count] if source >= 0 else [] for source, count in pairs]
            self.slots = kept + [[] for _ in range(step.reshape.num_slots - len(kept))]
            assert step.reshape.num_slots * step.reshape.length <= KV_TOKENS
        for copy in step.copies:
            assert len(self.slots[copy.source]) >= copy.count
            self.slots[copy.target] = self.slots[copy.source][: copy.count]
        for row in step.rows:
            sequence, samples = row.sequence, row.samples
            assert sequence.slot is not None
            new = sequence.tokens[row.start : row.start + row.count]
            self.slots[sequence.slot] = [*self.slots[sequence.slot][: row.start], *new]
            sequence.num_cached += row.count
            if samples:
                sequence.tokens.append(next_token(self.slots[sequence.slot]))


def next_token(tokens: list[int]) -> int:
    return hash(tuple(tokens)) % 50


def alone(sequence: Sequence) -> list[int]:
    """What it would have said by itself."""
    tokens = list(sequence.prompt_ids)
    while len(tokens) < len(sequence.tokens):
        tokens.append(next_token(tokens))
    return tokens


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ask", "ask", "step", "step", "step", "leave", "read"]),
            st.integers(0, 40),
        ),
        max_size=80,
    )
)
def test_bounds_hold_whatever_happens_and_everybody_gets_an_answer(events: list[Event]) -> None:
    watched = Watched()
    for kind, number in events:
        if kind == "ask":
            watched.add(number)
        elif kind == "step":
            watched.step()
        elif watched.asked:
            sequence = watched.asked[number % len(watched.asked)]
            (watched.drop if kind == "leave" else watched.read)(sequence)
    steps = 0
    while watched.asked:
        watched.step()
        for sequence in watched.asked.copy():
            watched.read(sequence)
            if sequence.num_generated >= MOST:
                assert sequence.tokens == alone(sequence)
                watched.drop(sequence)
        steps += 1
        assert steps < 5000
    assert not watched.scheduler.running and not watched.scheduler.waiting
    assert not watched.scheduler.has_work
    assert watched.step().rows == ()


def test_cancelled_sequence_leaves_its_slot_to_the_next_step() -> None:
    scheduler = Scheduler(Capacity(1, 40, 40, shortest=40), CHUNK)
    one, other = (Sequence((token,) * 4, Sampling(), 0) for token in (1, 2))
    scheduler.add(one)
    scheduler.add(other)
    assert [row.sequence for row in scheduler.schedule().rows] == [one]
    scheduler.remove(one)
    assert [row.sequence for row in scheduler.schedule().rows] == [other]


def flood(oldest: int, others: Iterator[int]) -> int:
    """Steps until a prompt of `oldest` tokens has its first, with another one coming each step."""
    scheduler = Scheduler(Capacity(64, 64 * 1000, 1000, shortest=1000), CHUNK)
    watched = Sequence((1,) * oldest, Sampling(), 0)
    scheduler.add(watched)
    steps = 0
    while not watched.num_generated:
        scheduler.add(Sequence((2 + steps,) * next(others), Sampling(), 0))
        for row in scheduler.schedule().rows:
            samples = row.samples
            row.sequence.num_cached += row.count
            if samples:
                row.sequence.tokens.append(0)
                if row.sequence is not watched:
                    scheduler.remove(row.sequence)
        steps += 1
    return steps


@pytest.mark.parametrize("others", [1, 8, 23])
def test_long_prompt_among_a_flood_of_short_ones_is_done_at_half_the_rate(others: int) -> None:
    assert flood(480, iter(lambda: others, 0)) <= 480 / (CHUNK / 2)


def test_short_prompt_among_long_ones_is_done_at_half_the_rate() -> None:
    scheduler = Scheduler(Capacity(64, 64 * 1000, 1000, shortest=1000), CHUNK)
    for number in range(8):
        scheduler.add(Sequence((2 + number,) * 900, Sampling(), 0))
    scheduler.schedule()
    short = Sequence((1,) * 30, Sampling(), 0)
    scheduler.add(short)
    counts = []
    while short.num_pending > 0:
        rows = {row.sequence: row for row in scheduler.schedule().rows}
        for row in rows.values():
            row.sequence.num_cached += row.count
        counts.append(rows[short].count)
    assert counts == [12, 12, 6]


@given(st.lists(st.lists(st.integers(0, 1), max_size=5), max_size=12), st.integers(0, 11))
def test_prefixes_find_whoever_has_most_blocks_in_common(
    held: list[list[int]], replaced: int
) -> None:
    prefixes = Prefixes()
    for place, blocks in enumerate(held):
        prefixes.put(place, keys(blocks))
    if replaced < len(held):
        held[replaced] = [1, 1, 1]
        prefixes.put(replaced, keys(held[replaced]))
    asked = [1, 0, 1]
    common = {place: num_common(blocks, asked) for place, blocks in enumerate(held)}
    expected = [
        (depth, {place for place, count in common.items() if count == depth}) for depth in (3, 2, 1)
    ]
    assert list(prefixes.alike(keys(asked))) == [level for level in expected if level[1]]


def keys(blocks: list[int]) -> list[int]:
    found: list[int] = []
    extend_keys(found, [token for token in blocks for _ in range(BLOCK)], len(blocks) * BLOCK)
    return found


def num_common(one: list[int], other: list[int]) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )
