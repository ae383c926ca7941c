"""What the compiled step is checked against: logits of the model's own forward."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE = 40
"""Tokens of the check."""
PICKED = (PROBE // 2 - 1, 0, PROBE - 1)
"""Those whose logits are compared."""


def probe(vocab_size: int) -> list[int]:
    """Token ids of the check."""
    return [i * 7919 % vocab_size for i in range(PROBE)]


@torch.no_grad()
def reference_logits(model: "PreTrainedModel") -> Tensor:
    """[picked, vocab], by transformers."""
    ids = torch.tensor([probe(model.config.vocab_size)])
    with _in_float32(model):
        logits: Tensor = model(ids).logits[0]
    return logits[list(PICKED)]


@contextmanager
def _in_float32(model: "PreTrainedModel") -> Iterator[None]:
    """Activations in float32, and weights too, one layer at a time: what rounding of activations
    does to bfloat16 (up to 10 % of the logits) would hide a wrong weight."""
    dtype = model.dtype

    def widen(module: nn.Module, _: object) -> None:
        module.float()

    def narrow(module: nn.Module, _: object, __: object) -> None:
        module.to(dtype)

    embeddings = model.get_input_embeddings()
    hooks = [embeddings.register_forward_hook(lambda _, __, embedded: embedded.float())]
    for module in (*model.model.layers, model.model.norm, model.lm_head):
        hooks += [module.register_forward_pre_hook(widen), module.register_forward_hook(narrow)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
