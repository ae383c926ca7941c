"""A text encoder over one flat row of tokens, without padding, as an attention function.

Of 32 sentences of 24 tokens, padded to the longest, a third would be padding: only the attention
sees it. Models whose attention needs more than that (relative positions, windows) run padded, as
ever.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from servemu_engine.pooling import Rows
from servemu_engine.threads import NUM_THREADS, use_threads

FLAT_ATTENTION = "servemu_flat"
_PROBE = (3, 5, 5, 9)
"""Lengths of the texts of the check at load."""
_TOLERANCE = 0.02
"""Of the hidden states, relative to their size: bfloat16 rounds more than float32."""
_FEWEST_TEXTS = 2
"""A core gets; a single one is run by all cores together."""


@dataclass(frozen=True, slots=True)
class FlatTexts:
    """Where the tokens of texts that lie one after the other are among padded ones."""

    shape: tuple[int, int]
    """(texts, tokens of the longest)"""
    sources: Tensor
    """[texts * longest]: the token at each padded place; of padding, the first."""
    places: Tensor
    """[tokens]: the padded place of each."""
    is_token: Tensor | None
    """[texts, 1, 1, longest]; None: they all are."""

    def padded(self, states: Tensor) -> Tensor:
        """[heads, tokens, size] to [texts, heads, longest, size]."""
        rows = states.transpose(0, 1)
        if self.is_token is not None:
            rows = rows.index_select(0, self.sources)
        return rows.reshape(*self.shape, *rows.shape[1:]).transpose(1, 2)

    def flat(self, states: Tensor) -> Tensor:
        """[texts, heads, longest, size] back to [tokens, heads, size]."""
        rows = states.transpose(1, 2).flatten(0, 1)
        return rows if self.is_token is None else rows.index_select(0, self.places)


def flat_texts(rows: Rows, device: torch.device) -> FlatTexts:
    """Of token ids."""
    lengths = torch.tensor([len(row) for row in rows], device=device)
    longest = max(map(len, rows))
    is_token = torch.arange(longest, device=device) < lengths.unsqueeze(1)
    whole = is_token.flatten()
    sources = (whole.cumsum(0) - 1) * whole
    places = whole.nonzero().squeeze(1)
    is_even = len(places) == len(whole)
    shape = (len(rows), longest)
    return FlatTexts(shape, sources, places, None if is_even else is_token[:, None, None])


def flat_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    texts: FlatTexts,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """`query` is [1, heads, tokens, head size]; back comes [1, tokens, heads, head size]."""
    if attention_mask is not None or sliding_window:
        raise NotImplementedError("a mask of its own")
    is_causal = bool(getattr(module, "is_causal", False))  # then padding, on the right, is hidden
    queries, keys, values = (texts.padded(states[0]) for states in (query, key, value))
    attended = F.scaled_dot_product_attention(
        queries,
        keys,
        values,
        attn_mask=None if is_causal else texts.is_token,
        is_causal=is_causal,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return texts.flat(attended).unsqueeze(0), None


AttentionInterface.register(FLAT_ATTENTION, flat_attention)


def shares(rows: Rows, count: int) -> list[Rows]:
    """`rows` in at most `count` parts, in order, of about as many tokens each; at least one."""
    parts: list[Rows] = []
    begin, left = 0, sum(map(len, rows))
    for number in range(max(count, 1), 1, -1):
        end, taken = begin, 0
        while end < len(rows) and taken + len(rows[end]) / 2 <= left / number:
            taken += len(rows[end])
            end += 1
        if end > begin:
            parts.append(rows[begin:end])
        begin, left = end, left - taken
    return [*parts, rows[begin:]] if begin < len(rows) else parts


class FlatEncoder:
    """The model, when it runs flat as it runs padded. Raises `NotImplementedError` if it does not.

    Its attention is another from then on; only this class may run it. On CPU each core takes some
    of the texts, so that no core waits for another after each operation.
    """

    def __init__(self, model: PreTrainedModel, pad_id: int) -> None:
        self._model = model
        self._num_workers = NUM_THREADS if model.device.type == "cpu" else 1
        self._workers = ThreadPoolExecutor(self._num_workers, "servemu-encoder")
        vocab_size = model.config.get_text_config().vocab_size
        ids = [i for i in range(vocab_size) if i != pad_id]
        rows = [[ids[(7919 * i + n) % len(ids)] for i in range(n)] for n in _PROBE]
        before = model.config._attn_implementation
        with torch.inference_mode():
            expected = torch.cat([self._alone(row) for row in rows])
            model.set_attn_implementation(FLAT_ATTENTION)
            # RoBERTa counts positions from behind its padding's.
            for self._first_position in (0, pad_id + 1):
                if self._agrees(rows, expected):
                    return
        model.set_attn_implementation(before)
        raise NotImplementedError(f"{type(model).__name__} does not run without padding")

    def hidden(self, rows: Rows) -> Tensor:
        """Hidden states of all texts, one after the other: [tokens, width]."""
        parts = shares(rows, min(self._num_workers, len(rows) // _FEWEST_TEXTS))
        if len(parts) == 1:
            return self._run(rows, NUM_THREADS)
        return torch.cat(list(self._workers.map(lambda part: self._run(part, 1), parts)))

    @torch.inference_mode()
    def _run(self, rows: Rows, num_threads: int) -> Tensor:
        use_threads(num_threads)
        device = self._model.device
        ids = [token for row in rows for token in row]
        first = self._first_position
        positions = [first + place for row in rows for place in range(len(row))]
        inputs: dict[str, Any] = {
            "input_ids": torch.tensor([ids], device=device),
            "position_ids": torch.tensor([positions], device=device),
            "texts": flat_texts(rows, device),
        }
        states: Tensor = self._model(**inputs).last_hidden_state[0]
        return states

    def _alone(self, row: Sequence[int]) -> Tensor:
        ids = torch.tensor([row], device=self._model.device)
        states: Tensor = self._model(
            input_ids=ids, attention_mask=torch.ones_like(ids)
        ).last_hidden_state[0]
        return states

    def _agrees(self, rows: Rows, expected: Tensor) -> bool:
        try:
            got = self.hidden(rows).float()
        except (TypeError, ValueError, IndexError, KeyError, AttributeError, RuntimeError):
            return False  # NotImplementedError is a RuntimeError
        wanted = expected.float()
        return bool((got - wanted).norm() <= _TOLERANCE * wanted.norm())
