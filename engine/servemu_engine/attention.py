"""Attention of one flat step over the slots of the cache, as a transformers attention function."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from servemu_engine.cache import Layout, Segment

SLOT_ATTENTION = "servemu_slots"


def slot_attention(
    module: nn.Module,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    attention_mask: Tensor | None,
    *,
    slot_layout: Layout,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """`query` is [1, heads, tokens, head size]; back comes [1, tokens, heads, head size]."""
    scores = _Scores(scaling or query.shape[-1] ** -0.5, sliding_window, softcap)
    flat = query[0].transpose(0, 1)
    parts = []
    if slot_layout.num_decode:
        parts.append(_decode(flat[: slot_layout.num_decode], (keys, values), slot_layout, scores))
    for segment in slot_layout.segments[slot_layout.num_decode :]:
        parts.append(_prefill(flat, (keys, values), (slot_layout, segment), scores))
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).unsqueeze(0), None


AttentionInterface.register(SLOT_ATTENTION, slot_attention)


class _Scores:
    """How a query is weighed against keys in one layer."""

    __slots__ = ("scaling", "softcap", "window")

    def __init__(self, scaling: float, window: int | None, softcap: float | None) -> None:
        self.scaling = scaling
        self.window = window
        self.softcap = softcap

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        if self.softcap is None:
            return F.scaled_dot_product_attention(
                query, keys, values, attn_mask=mask, scale=self.scaling
            )
        raw = (query @ keys.transpose(-1, -2)) * self.scaling
        capped = torch.tanh(raw / self.softcap) * self.softcap
        if mask is not None:
            capped = capped + mask
        return capped.float().softmax(-1).to(query.dtype) @ values


def _decode(query: Tensor, store: tuple[Tensor, Tensor], layout: Layout, scores: _Scores) -> Tensor:
    """One token a sequence: the query heads of a group stand in for query positions, so that no key
    is repeated. `query`: [sequences, heads, head size]."""
    length, slots = layout.decode_length, layout.decode_slots
    keys, values = (tensor[slots, :, :length] for tensor in store)
    grouped = query.reshape(query.shape[0], keys.shape[1], -1, query.shape[-1])
    mask = layout.decode_mask(query.dtype, scores.window)
    if mask is not None:
        mask = mask.expand(-1, -1, grouped.shape[2], -1)
    attended = scores.attend(grouped, keys, values, mask)
    return attended.reshape(query.shape[0], query.shape[1], -1)


def _prefill(
    flat: Tensor, store: tuple[Tensor, Tensor], place: tuple[Layout, Segment], scores: _Scores
) -> Tensor:
    """The next tokens of one sequence. `flat`: [tokens of the step, heads, head size]."""
    layout, segment = place
    keys, values = (tensor[segment.slot : segment.slot + 1, :, : segment.stop] for tensor in store)
    query = flat[segment.begin : segment.end].transpose(0, 1).unsqueeze(0)
    groups = query.shape[1] // keys.shape[1]
    mask = layout.prefill_mask(segment, query.dtype, scores.window)
    attended = scores.attend(
        query, keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1), mask
    )
    return attended[0].transpose(0, 1)
