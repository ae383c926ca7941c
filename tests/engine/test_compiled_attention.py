"""What is compiled for the steps of transformers' modules, beside what it takes the place of."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from servemu_engine.attention import slot_attention
from servemu_engine.cache import Segment, layout_of
from servemu_engine.compiled_attention import CompiledAttention
from servemu_engine.compiled_norm import CompiledNorm, compile_norms
from servemu_engine.compiling import NotCompiled

SEGMENTS = (
    Segment(0, 1, 2, 70),
    Segment(1, 2, 0, 6),
    Segment(2, 60, 1, 0),
    Segment(60, 75, 3, 31),
)


def given(size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
    """Queries of six heads, keys and values of two, whatever was written before among them."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 75, 6, size, generator=generator).transpose(1, 2)
    keys, values = torch.randn(2, 4, 2, 80, size, generator=generator)
    return query, keys, values, None


@pytest.fixture(scope="module")
def attention(compiled_libraries: Path) -> CompiledAttention:
    return CompiledAttention(compiled_libraries)


@pytest.mark.parametrize(
    "limits",
    [{}, {"sliding_window": 5}, {"sliding_window": 33}, {"softcap": 3.0}, {"scaling": 0.3}],
    ids=str,
)
def test_attention_is_that_of_torch(attention: CompiledAttention, limits: dict[str, Any]) -> None:
    layout = layout_of(SEGMENTS, 2, torch.device("cpu"))
    got, _ = attention.attend(nn.Identity(), *given(64), slot_layout=layout, **limits)
    wanted, _ = slot_attention(nn.Identity(), *given(64), slot_layout=layout, **limits)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_attention_reads_nothing_behind_a_sequence(attention: CompiledAttention) -> None:
    query, keys, values, _ = given(64)
    layout = layout_of(SEGMENTS, 2, torch.device("cpu"))
    wanted, _ = attention.attend(nn.Identity(), query, keys, values, None, slot_layout=layout)
    for segment in SEGMENTS:
        keys[segment.slot, :, segment.stop :] = torch.nan
        values[segment.slot, :, segment.stop :] = torch.nan
    got, _ = attention.attend(nn.Identity(), query, keys, values, None, slot_layout=layout)
    assert torch.equal(got, wanted)


def test_attention_of_a_sequence_does_not_depend_on_the_others(
    attention: CompiledAttention,
) -> None:
    query, keys, values, _ = given(64)
    layout = layout_of(SEGMENTS, 2, torch.device("cpu"))
    together, _ = attention.attend(nn.Identity(), query, keys, values, None, slot_layout=layout)
    alone = layout_of((Segment(0, 15, 3, 31),), 0, torch.device("cpu"))
    got, _ = attention.attend(
        nn.Identity(), query[:, :, 60:], keys, values, None, slot_layout=alone
    )
    assert torch.equal(got, together[:, 60:])


def test_attention_leaves_heads_that_fill_no_panel_to_torch(attention: CompiledAttention) -> None:
    layout = layout_of(SEGMENTS, 2, torch.device("cpu"))
    got, _ = attention.attend(nn.Identity(), *given(20), slot_layout=layout)
    wanted, _ = slot_attention(nn.Identity(), *given(20), slot_layout=layout)
    assert torch.equal(got, wanted)


def test_attention_that_gives_other_numbers_is_not_used(
    attention: CompiledAttention, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_run", lambda *_: None)
    with pytest.raises(NotCompiled, match="attention"):
        attention.check()


@pytest.mark.parametrize("kind", [LlamaRMSNorm, GemmaRMSNorm])
def test_norms_are_replaced_by_what_computes_the_same(
    kind: type[nn.Module], compiled_libraries: Path
) -> None:
    norm = kind(48, eps=1e-5).requires_grad_(False)
    norm.get_parameter("weight").copy_(torch.linspace(0.5, 2, 48))
    model = nn.Sequential(norm)
    rows = torch.randn(1, 7, 48, generator=torch.Generator().manual_seed(0))
    wanted = model(rows)
    assert compile_norms(model, compiled_libraries) == 1
    assert isinstance(model[0], CompiledNorm)
    torch.testing.assert_close(model(rows), wanted, rtol=1e-5, atol=1e-5)


def test_norm_that_computes_something_else_stays(compiled_libraries: Path) -> None:
    class OtherRMSNorm(LlamaRMSNorm):  # type: ignore[misc]  # transformers is untyped
        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            normed: torch.Tensor = super().forward(hidden_states)
            return normed + 1

    model = nn.Sequential(OtherRMSNorm(48).requires_grad_(False))
    assert compile_norms(model, compiled_libraries) == 0
