"""The device step: one forward of any decoder-only transformers model over a flat row of tokens."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from servemu_engine.attention import SLOT_ATTENTION
from servemu_engine.cache import Layout, Segment, SlotCache, layout_of
from servemu_engine.errors import LoadFailed
from servemu_engine.graphs import Capture, DecodeGraphs
from servemu_engine.sampler import Sampled
from servemu_engine.scheduler import Row, Step
from servemu_engine.slots import Reshape
from servemu_engine.step_rows import flat, next_tokens
from servemu_engine.threads import NUM_THREADS, use_threads

_log = logging.getLogger(__name__)
_PROBE = 12
"""Tokens of the check at start."""


class Runner:
    """Owns the model and its KV cache. `run` belongs to one thread.

    `num_threads`: cores a step may use on CPU; None: as torch decides for the process.
    `captures`: makes what decoding steps are captured with; None: they are run anew each time.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        num_threads: int | None = None,
        captures: Callable[[], Capture] | None = None,
    ) -> None:
        self._model = model
        self._num_threads = num_threads or NUM_THREADS
        self._device = model.device
        num_layers = model.config.get_text_config().num_hidden_layers
        self._cache = SlotCache(num_layers, num_spare=0 if captures is None else 1)
        self._graphs = captures and DecodeGraphs(self._cache, self._logits, captures)

    @property
    def num_bytes_per_token(self) -> int:
        """Of keys and values; known after `check`."""
        return self._cache.num_bytes_per_token

    @property
    def kv_layers(self) -> Mapping[str, int]:
        """How many layers have their keys and values on each device; known after `check`."""
        return Counter(str(keys.device) for keys in self._cache.keys if keys is not None)

    def step_bytes(self, num_tokens: int, num_rows: int) -> int:
        """Of the activations of a layer, several at a time, and of logits and what sampling makes
        of them, in float32."""
        config = self._model.config.get_text_config()
        hidden = config.hidden_size
        inner = getattr(config, "intermediate_size", None) or 4 * hidden
        layer = num_tokens * (8 * hidden + 3 * inner) * self._model.dtype.itemsize
        return int(layer + num_rows * config.vocab_size * 4 * 4)

    @torch.inference_mode()
    def check(self) -> None:
        """One tiny step, compared with the model's own forward. Raises `LoadFailed` if they differ:
        the architecture then does something with its attention that slots do not know."""
        ids = [i * 7919 % self._model.config.get_text_config().vocab_size for i in range(_PROBE)]
        expected = self._model(torch.tensor([ids], device=self._device)).logits[0, -1].float()
        self._model.set_attn_implementation(SLOT_ATTENTION)
        self._reshape(Reshape(2, _PROBE, ()))
        try:
            self._forward(ids[:-1], layout_of((Segment(0, _PROBE - 1, 1, 0),), 0, self._device))
            last = layout_of((Segment(0, 1, 1, _PROBE - 1),), 1, self._device)
            got = self._forward(ids[-1:], last)[-1].float()
        except (TypeError, ValueError, IndexError, KeyError, AttributeError, RuntimeError) as error:
            raise LoadFailed(f"{self._name}: it does not run over a slot cache: {error}") from error
        spread = (expected - expected.mean()).norm()
        if not (got - expected).norm() <= 0.05 * spread:
            raise LoadFailed(f"{self._name}: not supported, other logits over a slot cache")
        if self._graphs is not None:
            self._check_graphs(self._graphs, ids[-1], got)

    def _check_graphs(self, graphs: DecodeGraphs, token: int, expected: Tensor) -> None:
        """The last token of `check` once more, captured: where that fails or differs, steps are
        run anew each time, and the log says why."""
        reason = "other logits"
        try:
            got = graphs.logits([token], (Segment(0, 1, 1, _PROBE - 1),))[-1].float()
            is_close = (got - expected).norm() <= 0.05 * (expected - expected.mean()).norm()
        except RuntimeError as error:
            is_close, reason = False, str(error)
        if not is_close:
            _log.warning("%s decodes without CUDA graphs: %s", self._name, reason)
            self._graphs = None

    def _reshape(self, change: Reshape) -> None:
        if self._graphs is not None:
            self._graphs.drop()
        self._cache.reshape(change)

    @property
    def _name(self) -> str:
        return type(self._model).__name__

    @torch.inference_mode()
    def run(self, step: Step) -> list[tuple[Row, Sampled]]:
        """The next token of each row that samples, in the order of `step.rows`; before them, rows
        whose logits are no numbers, sampling or not, with their slots emptied."""
        use_threads(self._num_threads)
        if step.reshape is not None:
            self._reshape(step.reshape)
        for copy in step.copies:
            self._cache.copy(copy)
        if not step.rows:
            return []
        ids, segments = flat(step)
        logits = self._graphs.logits(ids, segments) if self._graphs and not step.prefill else None
        if logits is None:
            layout = layout_of(segments, len(step.decode), self._device)
            logits = self._forward(ids, layout)
        outcome = next_tokens(step, logits)
        for row, token in outcome:
            if not token.is_finite:
                self._cache.clear(row.sequence.slot or 0)
        return outcome

    def _forward(self, ids: list[int], layout: Layout) -> Tensor:
        """Logits of the last token of each segment: [segments, vocab]."""
        last = torch.tensor([s.end - 1 for s in layout.segments], device=self._device)
        return self._logits(torch.tensor(ids, device=self._device), layout, last)

    def _logits(self, ids: Tensor, layout: Layout, kept: Tensor | None = None) -> Tensor:
        """[kept, vocab] of the tokens `ids`; None: of all."""
        self._cache.layout = layout
        output = self._model(
            input_ids=ids.unsqueeze(0),
            position_ids=layout.positions.unsqueeze(0),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=0 if kept is None else kept,
            slot_layout=layout,
        )
        logits: Tensor = output.logits[0]
        return logits
