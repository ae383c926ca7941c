"""Texts without padding have the hidden states that transformers give each of them alone."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_models import GROUPED, SHAPE, tiny
from transformers import (
    AutoModel,
    BertConfig,
    DistilBertConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedModel,
    Qwen3Config,
    RobertaConfig,
)

from servemu_engine.flat_encoder import FlatEncoder, shares
from servemu_engine.packed import pack_linears
from servemu_engine.threads import NUM_THREADS

ENCODER = {**SHAPE, "pad_token_id": 1}
FLAT = {
    "bert": BertConfig(**ENCODER),
    "roberta counts positions from its padding on": RobertaConfig(**ENCODER),
    "distilbert": DistilBertConfig(
        vocab_size=300, dim=64, hidden_dim=128, n_layers=2, n_heads=4, pad_token_id=1
    ),
    "qwen3 looks back only": Qwen3Config(**GROUPED, head_dim=16),
}
PADDED = {
    "mpnet has relative positions": MPNetConfig(**ENCODER),
    "modernbert has windows": ModernBertConfig(**ENCODER, local_attention=8),
}
LENGTHS = (1, 5, 5, 12, 30, 40)


def texts() -> list[list[int]]:
    torch.manual_seed(1)
    return [torch.randint(5, 300, (length,)).tolist() for length in LENGTHS]


def each_alone(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([model(torch.tensor([ids])).last_hidden_state[0] for ids in texts()])


@pytest.mark.parametrize("prepare", [lambda model: 0, pack_linears], ids=["plain", "packed"])
@pytest.mark.parametrize("family", FLAT)
def test_hidden_states_are_those_of_each_text_alone(
    family: str, prepare: Callable[[PreTrainedModel], int]
) -> None:
    expected = each_alone(tiny(FLAT[family], of=AutoModel))
    model = tiny(FLAT[family], of=AutoModel)
    prepare(model)
    encoder = FlatEncoder(model, pad_id=1)
    for _ in range(2):  # cores share the texts anew each time
        torch.testing.assert_close(encoder.hidden(texts()), expected, rtol=1e-3, atol=1e-3)
    last = encoder.hidden(texts()[-1:])  # by all cores together
    torch.testing.assert_close(last, expected[-LENGTHS[-1] :], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", PADDED)
def test_attention_that_needs_more_is_left_as_it_was(family: str) -> None:
    model = tiny(PADDED[family], of=AutoModel)
    expected = each_alone(model)
    with pytest.raises(NotImplementedError, match=type(model).__name__):
        FlatEncoder(model, pad_id=1)
    torch.testing.assert_close(each_alone(model), expected)


def test_cores_that_share_leave_this_thread_its_own() -> None:
    encoder = FlatEncoder(tiny(FLAT["bert"], of=AutoModel), pad_id=1)
    encoder.hidden(texts())
    assert torch.get_num_threads() == NUM_THREADS


@given(st.lists(st.integers(1, 40), min_size=1, max_size=40), st.integers(0, 9))
def test_shares_are_all_texts_in_order_and_about_as_long(lengths: list[int], count: int) -> None:
    rows = [[place] * length for place, length in enumerate(lengths)]
    parts = shares(rows, count)
    assert [row for part in parts for row in part] == rows
    assert all(parts) and 1 <= len(parts) <= max(count, 1)
    fair = sum(lengths) / max(count, 1)
    assert max(sum(map(len, part)) for part in parts) <= fair + max(lengths)
