"""The device step: one forward of any decoder-only transformers model over a flat row of tokens."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from servemu_engine.attention import SLOT_ATTENTION
from servemu_engine.cache import Layout, Segment, SlotCache
from servemu_engine.errors import LoadFailed
from servemu_engine.sampler import Draw, Sampled, sample, uniform
from servemu_engine.scheduler import Row, Step
from servemu_engine.slots import Reshape
from servemu_engine.threads import NUM_THREADS, use_threads

_PROBE = 12
"""Tokens of the check at start."""


class Runner:
    """Owns the model and its KV cache. `run` belongs to one thread.

    `num_threads`: cores a step may use on CPU; None: as torch decides for the process.
    """

    def __init__(self, model: PreTrainedModel, num_threads: int | None = None) -> None:
        self._model = model
        self._num_threads = num_threads or NUM_THREADS
        self._device = model.device
        self._cache = SlotCache(model.config.get_text_config().num_hidden_layers)

    @property
    def num_bytes_per_token(self) -> int:
        """Of keys and values; known after `check`."""
        return self._cache.num_bytes_per_token

    @torch.inference_mode()
    def check(self) -> None:
        """One tiny step, compared with the model's own forward. Raises `LoadFailed` if they differ:
        the architecture then does something with its attention that slots do not know."""
        ids = [i * 7919 % self._model.config.get_text_config().vocab_size for i in range(_PROBE)]
        expected = self._model(torch.tensor([ids], device=self._device)).logits[0, -1].float()
        self._model.set_attn_implementation(SLOT_ATTENTION)
        self._cache.reshape(Reshape(2, _PROBE, ()))
        try:
            self._forward(ids[:-1], Layout((Segment(0, _PROBE - 1, 1, 0),), 0, self._device))
            last = Layout((Segment(0, 1, 1, _PROBE - 1),), 1, self._device)
            got = self._forward(ids[-1:], last)[-1].float()
        except (TypeError, ValueError, IndexError, KeyError, AttributeError, RuntimeError) as error:
            raise LoadFailed(f"{self._name}: it does not run over a slot cache: {error}") from error
        spread = (expected - expected.mean()).norm()
        if not (got - expected).norm() <= 0.05 * spread:
            raise LoadFailed(f"{self._name}: not supported, other logits over a slot cache")

    @property
    def _name(self) -> str:
        return type(self._model).__name__

    @torch.inference_mode()
    def run(self, step: Step) -> list[tuple[Row, Sampled]]:
        """The next token of each row that samples, in the order of `step.rows`; before them, rows
        whose logits are no numbers, sampling or not, with their slots emptied."""
        use_threads(self._num_threads)
        if step.reshape is not None:
            self._cache.reshape(step.reshape)
        for copy in step.copies:
            self._cache.copy(copy)
        if not step.rows:
            return []
        ids, segments = flat(step)
        layout = Layout(segments, len(step.decode), self._device)
        outcome = next_tokens(step, self._forward(ids, layout))
        for row, token in outcome:
            if not token.is_finite:
                self._cache.clear(row.sequence.slot or 0)
        return outcome

    def _forward(self, ids: list[int], layout: Layout) -> Tensor:
        """Logits of the last token of each segment: [segments, vocab]."""
        self._cache.layout = layout
        output = self._model(
            input_ids=torch.tensor([ids], device=self._device),
            position_ids=layout.positions.unsqueeze(0),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=torch.tensor([s.end - 1 for s in layout.segments], device=self._device),
            slot_layout=layout,
        )
        logits: Tensor = output.logits[0]
        return logits


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
