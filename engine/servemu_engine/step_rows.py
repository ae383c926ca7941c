"""A step as one flat row of tokens, and what comes of its logits. No transformers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from servemu_engine.sampler import Draw, Sampled, sample, uniform
from servemu_engine.scheduler import Row, Step


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens `begin` to `end` of the step, the next of the sequence in `slot`, from `start` on."""

    begin: int
    end: int
    slot: int
    start: int

    @property
    def stop(self) -> int:
        """Length of the sequence after this step."""
        return self.start + self.end - self.begin


def flat(step: Step) -> tuple[list[int], tuple[Segment, ...]]:
    """The tokens of all rows, one after the other, and which belong to whom."""
    ids: list[int] = []
    segments: list[Segment] = []
    for row in step.rows:
        slot = row.sequence.slot
        assert slot is not None
        segments.append(Segment(len(ids), len(ids) + row.count, slot, row.start))
        ids.extend(row.sequence.tokens[row.start : row.start + row.count])
    return ids, tuple(segments)


def next_tokens(step: Step, logits: Tensor) -> list[tuple[Row, Sampled]]:
    """What `run` returns, from [rows, vocab], the logits of each row's last token."""
    is_finite = logits.amax(-1).isfinite().tolist()
    broken = [row for row, good in zip(step.rows, is_finite, strict=True) if not good]
    failed = [(row, Sampled(-1, None, is_finite=False)) for row in broken]
    sampling = [i for i, row in enumerate(step.rows) if row.samples and is_finite[i]]
    if not sampling:
        return failed
    if len(sampling) < len(is_finite):
        logits = logits[torch.tensor(sampling, device=logits.device)]
    rows = [step.rows[i] for i in sampling]
    sampled = sample(logits, [_draw(row) for row in rows])
    return failed + list(zip(rows, sampled, strict=True))


def _draw(row: Row) -> Draw:
    sequence = row.sequence
    drawn = uniform(sequence.seed, sequence.index, sequence.num_generated)
    constraint = sequence.constraint
    return Draw(sequence.sampling, drawn, None if constraint is None else constraint.allowed())
