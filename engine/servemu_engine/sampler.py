"""Logits to tokens and log-probabilities, each row by its own temperature, top-k, top-p and seed.

Sampling inverts the cumulative distribution at one uniform number a row: exact, cheap, and a seed
gives the same token whoever else is in the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from servemu_engine.base import Sampling

_MASK = (1 << 64) - 1
_COLDEST = 1e-5
"""A temperature below it is greedy: the quotient would leave the range of float32."""
_LARGEST_LOGIT = 1e30
_FIRST_CANDIDATES = 256


@dataclass(frozen=True, slots=True)
class Draw:
    """How one row is sampled. `uniform` is in [0, 1)."""

    sampling: Sampling
    uniform: float
    allowed: bytes | None = None
    """One bit a token, the lowest first: only these are drawn, by their share among them."""

    @property
    def is_greedy(self) -> bool:
        return self.sampling.temperature < _COLDEST


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Natural-log probabilities of the model itself, before temperature, top-k and top-p (OpenAI's
    meaning, as in vLLM's default `raw_logprobs`); of a row with a grammar, before that too."""

    logprob: float
    top: tuple[tuple[int, float], ...]
    """(token id, logprob), most likely first."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """The next token of a row."""

    token: int
    scores: TokenScores | None
    is_finite: bool = True
    """False: the model gave no numbers for this row, and `token` means nothing."""


def uniform(seed: int, index: int, position: int) -> float:
    """Uniform number in [0, 1) for the token at `position` of answer `index` (splitmix64)."""
    state = _mix(_mix(_mix(seed & _MASK) ^ index) ^ position)
    return (state >> 11) * 2.0**-53


def _mix(state: int) -> int:
    state = (state + 0x9E3779B97F4A7C15) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)


def sample(logits: Tensor, draws: Sequence[Draw]) -> list[Sampled]:
    """The next token of each row. `logits`: [rows, vocab], any float type; NaN is never sampled."""
    logits = logits.float().nan_to_num(
        nan=-_LARGEST_LOGIT, posinf=_LARGEST_LOGIT, neginf=-_LARGEST_LOGIT
    )
    choosable = _choosable(logits, draws)
    tokens = choosable.argmax(-1)
    plain = [i for i, draw in enumerate(draws) if not draw.is_greedy and not _is_filtered(draw)]
    filtered = [i for i, draw in enumerate(draws) if not draw.is_greedy and _is_filtered(draw)]
    for rows, choose in ((plain, _sample_all), (filtered, _sample_filtered)):
        if rows:
            chosen = [draws[row] for row in rows]
            index = torch.tensor(rows, device=logits.device)
            tokens[index] = choose(_tempered(choosable[index], chosen), chosen)
    scores = _scores(logits, tokens, draws)
    return [Sampled(token, scores.get(row)) for row, token in enumerate(tokens.tolist())]


def _choosable(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """The logits with -inf for what a row's grammar does not allow; the same ones without any."""
    rows = [row for row, draw in enumerate(draws) if draw.allowed is not None]
    if not rows:
        return logits
    vocab = logits.shape[-1]
    allowed = np.zeros((len(rows), vocab), dtype=np.uint8)
    for place, row in enumerate(rows):
        packed = np.frombuffer(draws[row].allowed or b"", dtype=np.uint8)
        bits = np.unpackbits(packed, bitorder="little")[:vocab]
        allowed[place, : len(bits)] = bits
    is_banned = torch.from_numpy(allowed == 0).to(logits.device)
    choosable = logits.clone()
    index = torch.tensor(rows, device=logits.device)
    choosable[index] = logits[index].masked_fill(is_banned, -torch.inf)
    return choosable


def _is_filtered(draw: Draw) -> bool:
    return draw.sampling.top_p < 1.0 or (draw.sampling.top_k or 0) > 0


def _tempered(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    temperatures = [draw.sampling.temperature for draw in draws]
    return logits / torch.tensor(temperatures, device=logits.device).unsqueeze(-1)


def _sample_all(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    return _invert(logits.softmax(-1), draws)


def _sample_filtered(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Top-k, then the smallest head of the rest with mass top-p or more; never an empty head."""
    vocab = logits.shape[-1]
    limits = [min(draw.sampling.top_k or vocab, vocab) for draw in draws]
    limits = [limit if limit > 0 else vocab for limit in limits]
    top_k = torch.tensor(limits, device=logits.device).unsqueeze(-1)
    top_p = _column([draw.sampling.top_p for draw in draws], logits)
    total = _mass_of_top_k(logits, top_k)
    num_candidates = min(_FIRST_CANDIDATES, vocab)
    while True:
        values, ids = logits.topk(num_candidates, dim=-1)
        probs = (values.double() - logits.amax(-1, keepdim=True)).exp() / total
        before = probs.cumsum(-1) - probs
        kept = (before < top_p) & (torch.arange(num_candidates, device=logits.device) < top_k)
        kept[:, 0] = True
        if num_candidates == vocab or not kept[:, -1].any():
            break
        num_candidates = min(num_candidates * 16, vocab)
    chosen = _invert(probs * kept, draws)
    return ids.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)


def _mass_of_top_k(logits: Tensor, top_k: Tensor) -> Tensor:
    """Sum of exp(logit - largest) over the k likeliest tokens of each row: [rows, 1], float64."""
    weights = (logits - logits.amax(-1, keepdim=True)).double().exp()
    total = weights.sum(-1, keepdim=True)
    vocab = logits.shape[-1]
    limited = [row for row, k in enumerate(top_k.squeeze(-1).tolist()) if k < vocab]
    if limited:
        largest = int(top_k[limited].max())
        head = weights[limited].topk(largest, dim=-1).values
        head = head * (torch.arange(largest, device=logits.device) < top_k[limited])
        total[limited] = head.sum(-1, keepdim=True)
    return total


def _invert(weights: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Index whose slice of the cumulative weights holds the row's uniform number: [rows]."""
    cumulative = weights.double().cumsum(-1)
    total = cumulative[:, -1:]
    target = _column([draw.uniform for draw in draws], weights) * total
    below_total = torch.nextafter(total, torch.zeros_like(total))
    return torch.searchsorted(cumulative, target.minimum(below_total), right=True).squeeze(-1)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=like.device).unsqueeze(-1)


def _scores(logits: Tensor, tokens: Tensor, draws: Sequence[Draw]) -> dict[int, TokenScores]:
    rows = [row for row, draw in enumerate(draws) if draw.sampling.logprobs]
    if not rows:
        return {}
    index = torch.tensor(rows, device=logits.device)
    logprobs = logits[index].log_softmax(-1)
    chosen = logprobs.gather(-1, tokens[index].unsqueeze(-1)).squeeze(-1).tolist()
    most = min(max(draws[row].sampling.top_logprobs for row in rows), logits.shape[-1])
    values, ids = (part.tolist() for part in logprobs.topk(most, dim=-1))
    scores = {}
    for place, row in enumerate(rows):
        wanted = draws[row].sampling.top_logprobs
        top = tuple(zip(ids[place][:wanted], values[place][:wanted], strict=True))
        scores[row] = TokenScores(chosen[place], top)
    return scores
