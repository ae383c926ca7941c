"""One answer while it is generated: counts, pausing, eviction."""

from servemu_engine.base import Sampling
from servemu_engine.sequence import Sequence


def test_counts_split_prompt_from_answer() -> None:
    sequence = Sequence((5, 6, 7), Sampling(), seed=0)
    sequence.tokens += [8, 9]
    sequence.num_cached = 4
    assert (sequence.num_generated, sequence.num_pending) == (2, 1)


def test_sequence_pauses_when_run_ahead_tokens_are_unread() -> None:
    sequence = Sequence((5,), Sampling(), seed=0, run_ahead=2)
    sequence.tokens += [6]
    assert not sequence.is_paused
    sequence.tokens += [7]
    assert sequence.is_paused
    sequence.num_taken = 1
    assert not sequence.is_paused


def test_evicted_sequence_keeps_its_tokens_and_has_all_to_prefill() -> None:
    sequence = Sequence((5, 6), Sampling(), seed=0)
    sequence.tokens += [7]
    sequence.slot, sequence.num_cached = 3, 2
    sequence.evict()
    assert sequence.slot is None
    assert (sequence.tokens, sequence.num_pending) == ([5, 6, 7], 3)
