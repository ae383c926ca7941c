"""Logits to tokens: exact against plain references, each row by its own settings."""

import math

import pytest
import torch

from servemu_engine.base import Sampling
from servemu_engine.sampler import Draw, TokenScores, sample, uniform

VOCAB = 600


@pytest.fixture
def logits() -> torch.Tensor:
    """[8, VOCAB], one flat and seven peaked rows."""
    generator = torch.Generator().manual_seed(3)
    scale = torch.tensor([0.01, 1, 1, 2, 2, 3, 3, 4]).unsqueeze(-1)
    return torch.randn(8, VOCAB, generator=generator) * scale


def reference(row: torch.Tensor, sampling: Sampling, at: float) -> int:
    """Sort, cut, renormalise, walk down the order the sampler documents."""
    probs = (row.double() / sampling.temperature).softmax(-1)
    order = torch.argsort(probs, descending=True, stable=True).tolist()
    is_filtered = sampling.top_p < 1 or bool(sampling.top_k)
    kept = order[: sampling.top_k] if sampling.top_k else order
    mass = sum(float(probs[id]) for id in kept)
    head: list[int] = []
    before = 0.0
    for id in kept:
        if head and before >= sampling.top_p * mass:
            break
        head.append(id)
        before += float(probs[id])
    walk = head if is_filtered else range(len(row))
    target = at * sum(float(probs[id]) for id in walk)
    for id in walk:
        target -= float(probs[id])
        if target < 0:
            return int(id)
    raise AssertionError("the uniform number is below 1")


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.7),
        Sampling(temperature=2.0),
        Sampling(top_p=0.9),
        Sampling(top_p=0.5, temperature=1.3),
        Sampling(top_p=0.999),
        Sampling(top_p=1e-9),
        Sampling(top_p=0.0),
        Sampling(top_k=1),
        Sampling(top_k=5),
        Sampling(top_k=400),
        Sampling(top_k=10_000),
        Sampling(top_k=20, top_p=0.8, temperature=0.9),
    ],
)
def test_token_is_the_one_the_reference_walks_to(logits: torch.Tensor, sampling: Sampling) -> None:
    places = [0.0, 0.013, 0.2, 0.41, 0.5, 0.77, 0.93, 0.9999]
    draws = [Draw(sampling, place) for place in places]
    expected = [reference(row, sampling, at) for row, at in zip(logits, places, strict=True)]
    assert [sampled.token for sampled in sample(logits, draws)] == expected


def test_row_does_not_depend_on_the_others(logits: torch.Tensor) -> None:
    kinds = [Sampling(temperature=0), Sampling(), Sampling(top_p=0.9), Sampling(top_k=7)] * 2
    draws = [Draw(kind, uniform(1, 0, place)) for place, kind in enumerate(kinds)]
    alone = [sample(logits[i : i + 1], [draw])[0].token for i, draw in enumerate(draws)]
    assert [sampled.token for sampled in sample(logits, draws)] == alone


@pytest.mark.parametrize("temperature", [0.0, 1e-9])
def test_temperature_of_nothing_is_greedy(logits: torch.Tensor, temperature: float) -> None:
    draws = [Draw(Sampling(temperature=temperature), 0.99)] * 8
    assert [sampled.token for sampled in sample(logits, draws)] == logits.argmax(-1).tolist()


def test_frequencies_follow_the_distribution() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -torch.inf]).expand(4000, 4)
    draws = [Draw(Sampling(), uniform(11, 0, place)) for place in range(4000)]
    counts = torch.bincount(torch.tensor([s.token for s in sample(logits, draws)]), minlength=4)
    expected = torch.tensor([0.0, 1.0, 2.0, -torch.inf]).softmax(-1)
    assert torch.allclose(counts / 4000, expected, atol=0.025)
    assert counts[3] == 0


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_p=0.9), Sampling(temperature=0)])
@pytest.mark.parametrize("place", [0.0, 0.5, 1 - 2**-53])
def test_nan_and_minus_infinity_are_never_sampled(sampling: Sampling, place: float) -> None:
    row = torch.tensor([torch.nan, 1.0, -torch.inf, 0.5, torch.nan])
    assert sample(row.unsqueeze(0), [Draw(sampling, place)])[0].token in (1, 3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_k=2), Sampling(temperature=0)])
def test_row_without_finite_numbers_still_gives_a_token(value: float, sampling: Sampling) -> None:
    token = sample(torch.full((1, 5), value), [Draw(sampling, 0.3)])[0].token
    assert 0 <= token < 5


def test_scores_are_untempered_log_softmax_with_the_alternatives_asked_for(
    logits: torch.Tensor,
) -> None:
    asked = [
        Sampling(),
        Sampling(logprobs=True, temperature=0.3, top_k=2),
        Sampling(logprobs=True, top_logprobs=3, temperature=0),
    ]
    sampled = sample(logits[:3], [Draw(sampling, 0.4) for sampling in asked])
    logprobs = logits[:3].log_softmax(-1)
    assert sampled[0].scores is None
    assert sampled[1].scores == TokenScores(float(logprobs[1, sampled[1].token]), ())
    values, ids = logprobs[2].topk(3)
    top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    assert sampled[2].scores == TokenScores(float(logprobs[2].max()), top)


def test_half_precision_logits_are_scored_in_float32(logits: torch.Tensor) -> None:
    half = logits[:1].bfloat16()
    sampled = sample(half, [Draw(Sampling(temperature=0, logprobs=True), 0.0)])[0]
    assert sampled.scores is not None
    assert sampled.scores.logprob == float(half.float().log_softmax(-1).max())


def test_uniform_numbers_are_spread_and_differ_by_seed_index_and_position() -> None:
    numbers = [uniform(s, i, p) for s in range(10) for i in range(10) for p in range(100)]
    assert len(set(numbers)) == 10_000
    assert all(0 <= number < 1 for number in numbers)
    assert abs(sum(numbers) / 10_000 - 0.5) < 0.01
    variance = sum((number - 0.5) ** 2 for number in numbers) / 10_000
    assert abs(variance - 1 / 12) < 0.005


@pytest.mark.parametrize("seed", [0, -1, 2**63, -(2**63), 2**70])
def test_any_integer_is_a_seed(seed: int) -> None:
    number = uniform(seed, 0, 0)
    assert 0 <= number < 1
    assert uniform(seed, 0, 0) == number
