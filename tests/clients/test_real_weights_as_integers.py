"""Integers in place of real weights, whose numbers are not those of random ones."""

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from servemu_engine.compiled import CompiledRunner
from servemu_engine.compiled_packing import Precision
from servemu_engine.loading import load_tokenizer
from servemu_engine.packed import pack_linears, packing
from servemu_engine.slots import Reshape
from servemu_engine.step_rows import Segment

TEXT = """A team rents machines by the hour. On Monday it asks for two, on Tuesday for none, and on
Friday, when the report is due, for twenty. The provider has twelve. What does the team see? First
a promise, then a wait, and after half an hour a refusal that names no reason. Def retry(times):
for attempt in range(times): try again. 17 + 25 = 42, and 42 / 6 = 7."""


@pytest.fixture
def folder(model_store: Path) -> Path:
    return model_store / "smollm2-135m-instruct"


def loaded(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return model.eval().requires_grad_(False)


def shares(model: PreTrainedModel, ids: list[int], libraries: Path, precision: Precision) -> Tensor:
    """Logarithms of what the compiled step gives each token, behind each of `ids`."""
    runner = CompiledRunner.of(model, libraries, 2, precision)
    runner.check()
    runner._reshape(Reshape(1, len(ids), ()))
    logits = runner._forward(ids, [Segment(i, i + 1, 0, i) for i in range(len(ids))])
    return logits.log_softmax(-1)


def test_integers_are_nearer_to_float32_than_bfloat16_weights(
    model_store: Path, folder: Path
) -> None:
    model, libraries = loaded(folder), model_store / ".compiled"
    ids = load_tokenizer(folder)(TEXT).input_ids
    with torch.inference_mode():
        wanted = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        integers = shares(model, ids, libraries, "int16")
        halves = shares(loaded(folder, torch.bfloat16), ids, libraries, "bfloat16")
    of_integers, of_halves = (
        (wanted.exp() * (wanted - got)).sum(-1).mean() for got in (integers, halves)
    )
    assert of_integers < 2e-5
    assert of_integers < of_halves / 4
    assert (integers.argmax(-1) == wanted.argmax(-1)).float().mean() > 0.98


def test_every_linear_layer_is_packed_as_integers(
    model_store: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = loaded(folder)
    linears = [layer for layer in model.modules() if type(layer) is torch.nn.Linear]
    with caplog.at_level(logging.WARNING, "servemu_engine"):
        assert pack_linears(model, packing(model_store / ".compiled", "int16")) == len(linears)
    assert not caplog.records
