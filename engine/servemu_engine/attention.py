"""Attention of one flat step over the slots of the cache, as a transformers attention function."""

import math
from dataclasses import dataclass
from typing import TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right
from transformers import AttentionInterface

from servemu_engine.cache import DecodeGroup, Layout, Segment

SLOT_ATTENTION = "servemu_slots"


class How(TypedDict, total=False):
    """What transformers says of an attention, of all that it says: the rest means nothing here."""

    scaling: float | None
    sliding_window: int | None
    softcap: float | None


def slot_attention(
    module: nn.Module,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    attention_mask: Tensor | None,
    *,
    slot_layout: Layout,
    **how: Unpack[How],
) -> tuple[Tensor, None]:
    """`query` is [1, heads, tokens, head size]; back comes [1, tokens, heads, head size]."""
    softcap, sliding_window = how.get("softcap"), how.get("sliding_window")
    scores = _Scores(how.get("scaling") or query.shape[-1] ** -0.5, softcap)
    flat, stores = query[0].transpose(0, 1), (keys, values)
    slot_layout = slot_layout.on(query.device)
    attended = flat.new_empty(flat.shape[0], flat.shape[1], values.shape[-1])
    for index, group in enumerate(slot_layout.groups):
        mask = slot_layout.decode_mask(index, flat.dtype, sliding_window)
        attended[group.rows] = _decode(flat[group.rows], _held(stores, group), mask, scores)
    for index in range(slot_layout.num_decode, len(slot_layout.segments)):
        segment = slot_layout.segments[index]
        rows, held = slice(segment.begin, segment.end), _held(stores, segment)
        is_causal = softcap is None and segment.stop <= (sliding_window or math.inf)
        if slot_layout.is_fused and is_causal:
            attended[rows] = _prefill_fused(flat[rows], held, scores)
            continue
        mask = slot_layout.prefill_mask(index, flat.dtype, sliding_window)
        attended[rows] = _prefill(flat[rows], held, mask, scores)
    return attended.unsqueeze(0), None


AttentionInterface.register(SLOT_ATTENTION, slot_attention)


Store = tuple[Tensor, Tensor]


def _held(stores: Store, part: DecodeGroup | Segment) -> Store:
    """Keys and values of a group or a segment: [sequences, kv heads, length, head size]."""
    if isinstance(part, Segment):
        slots, length = slice(part.slot, part.slot + 1), part.stop
        return stores[0][slots, :, :length], stores[1][slots, :, :length]
    return stores[0][part.slots, :, : part.length], stores[1][part.slots, :, : part.length]


@dataclass(frozen=True, slots=True)
class _Scores:
    """How a query is weighed against keys in one layer."""

    scaling: float
    softcap: float | None

    def attend(self, query: Tensor, held: Store, mask: Tensor | None) -> Tensor:
        keys, values = held
        if self.softcap is None:
            return F.scaled_dot_product_attention(
                query, keys, values, attn_mask=mask, scale=self.scaling
            )
        raw = (query @ keys.transpose(-1, -2)) * self.scaling
        capped = torch.tanh(raw / self.softcap) * self.softcap
        if mask is not None:
            capped = capped + mask
        return capped.float().softmax(-1).to(query.dtype) @ values


def _decode(query: Tensor, held: Store, mask: Tensor | None, scores: _Scores) -> Tensor:
    """One token a sequence: the query heads of a group stand in for query positions, so that no key
    is repeated. `query`: [sequences, heads, head size]."""
    kv_heads = held[0].shape[1]
    grouped = query.reshape(query.shape[0], kv_heads, -1, query.shape[-1])
    if mask is not None:
        mask = mask.expand(-1, -1, grouped.shape[2], -1)
    return scores.attend(grouped, held, mask).reshape(query.shape[0], query.shape[1], -1)


def _prefill(query: Tensor, held: Store, mask: Tensor, scores: _Scores) -> Tensor:
    """The next tokens of one sequence. `query`: [tokens, heads, head size]."""
    groups = query.shape[1] // held[0].shape[1]
    keys, values = (tensor.repeat_interleave(groups, 1) for tensor in held)
    attended = scores.attend(query.transpose(0, 1).unsqueeze(0), (keys, values), mask)
    return attended[0].transpose(0, 1)


def _prefill_fused(query: Tensor, held: Store, scores: _Scores) -> Tensor:
    """As `_prefill`, for a mask that is causal and no more: with a tensor for a mask, the flash
    kernels of CUDA are not chosen (torch.nn.attention.bias)."""
    mask = causal_lower_right(query.shape[0], held[0].shape[2])
    attended = F.scaled_dot_product_attention(
        query.transpose(0, 1).unsqueeze(0),
        *held,
        attn_mask=mask,
        scale=scores.scaling,
        enable_gqa=query.shape[1] != held[0].shape[1],
    )
    return attended[0].transpose(0, 1)
