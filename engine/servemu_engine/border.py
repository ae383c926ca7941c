"""What one request may not bring to the device: it would end the answers of all others."""

import math
from collections.abc import Sequence

from servemu_engine.base import GenerateRequest
from servemu_engine.errors import InvalidPrompt, InvalidSampling


def check_sampling(request: GenerateRequest) -> None:
    """Raises `InvalidSampling`. The wire has limits of its own, and narrower ones."""
    sampling = request.sampling
    is_good = {
        "n": request.n >= 1,
        "max_tokens": sampling.max_tokens is None or sampling.max_tokens >= 1,
        "temperature": math.isfinite(sampling.temperature) and sampling.temperature >= 0,
        "top_p": 0 <= sampling.top_p <= 1,  # not so of NaN
        "top_logprobs": sampling.top_logprobs >= 0,
    }
    for name, good in is_good.items():
        if not good:
            value = request.n if name == "n" else getattr(sampling, name)
            raise InvalidSampling(f"{name} cannot be {value}")


def check_ids(ids: Sequence[int], vocab_size: int) -> None:
    """Raises `InvalidPrompt`: the tokenizer of some folders knows more tokens than the model."""
    largest = max(ids)
    if largest >= vocab_size or min(ids) < 0:
        wrong = largest if largest >= vocab_size else min(ids)
        raise InvalidPrompt(f"token {wrong} is not one of the {vocab_size} tokens of the model")
