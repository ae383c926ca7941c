"""Integers in place of real weights, whose numbers are not those of random ones."""

import logging
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from servemu_engine.packed import pack_linears, packing


def test_every_linear_layer_is_packed_as_integers(
    model_store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = model_store / "smollm2-135m-instruct"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    linears = [layer for layer in model.modules() if type(layer) is torch.nn.Linear]
    with caplog.at_level(logging.WARNING, "servemu_engine"):
        assert pack_linears(model, packing(model_store / ".compiled", "int16")) == len(linears)
    assert not caplog.records
