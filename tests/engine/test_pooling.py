"""Pooling of hidden states, projections to other dimensions, and batches of like lengths."""

import json
from pathlib import Path

import pytest
import torch

from servemu_engine.embeddings import LocalEmbedder
from servemu_engine.errors import LoadFailed
from servemu_engine.pooling import Pooling, batches, pool, projection, read_pooling


def write_pooling(folder: Path, *modes: str) -> None:
    known = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "lasttoken")
    config = {f"pooling_mode_{mode}": f"pooling_mode_{mode}" in modes for mode in known}
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("dimensions", [16, 20, 1024])
def test_growing_projection_has_orthonormal_rows(dimensions: int) -> None:
    matrix = projection(16, dimensions)
    assert torch.allclose(matrix @ matrix.T, torch.eye(16), atol=1e-6)


def test_shrinking_projection_keeps_norms_on_average() -> None:
    matrix = projection(384, 128)
    directions = torch.nn.functional.normalize(
        torch.randn(2000, 384, generator=torch.Generator().manual_seed(0)), dim=1
    )
    norms = (directions @ matrix).square().sum(1)
    assert norms.mean().item() == pytest.approx(1.0, abs=0.02)


def test_projection_is_pinned() -> None:
    assert projection(2, 3).flatten().tolist() == pytest.approx(
        [0.3576916, -0.4931359, -0.7930155, 0.8771918, 0.4686967, 0.104201], abs=1e-6
    )


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("cls", [1, 5]), ("mean", [2, 6.5]), ("max", [3, 8]), ("last", [3, 8])],
)
def test_pooling_leaves_padding_out(pooling: Pooling, expected: list[float]) -> None:
    hidden = torch.tensor([[[1.0, 5.0], [3.0, 8.0], [99.0, 99.0]]])
    assert pool(hidden, torch.tensor([[1, 1, 0]]), pooling).tolist() == [expected]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("pooling_mode_cls_token", "cls"),
        ("pooling_mode_mean_tokens", "mean"),
        ("pooling_mode_max_tokens", "max"),
        ("pooling_mode_lasttoken", "last"),
    ],
)
def test_pooling_follows_the_weights_own_config(tmp_path: Path, mode: str, expected: str) -> None:
    write_pooling(tmp_path, mode)
    assert read_pooling(tmp_path, "bge") == expected


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("my-encoder", {}, "mean"),
        ("gte-large-en-v1.5", {}, "cls"),
        ("mine", {"_name_or_path": "BAAI/bge-small-en"}, "cls"),
        ("qwen3-embedding-0-6b", {"architectures": ["Qwen3ForCausalLM"]}, "last"),
    ],
)
def test_pooling_without_config_follows_the_family(
    tmp_path: Path, name: str, config: dict[str, object], expected: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_pooling(tmp_path, name) == expected


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "1_Pooling/config.json",
            '{"pooling_mode_mean_sqrt_len_tokens": true}',
            r"pooling by \['pooling_mode_mean_sqrt_len_tokens'\] is not supported",
        ),
        ("1_Pooling/config.json", "{", "1_Pooling/config.json is not valid JSON"),
        ("modules.json", '[{"type": "sentence_transformers.models.Dense"}]', "module 'Dense'"),
    ],
)
def test_pooling_that_is_not_known_fails_the_load(
    tmp_path: Path, file: str, content: str, message: str
) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / file).write_text(content)
    with pytest.raises(LoadFailed, match=message):
        LocalEmbedder(tmp_path, "odd").start()


def test_batches_hold_like_lengths_and_a_bounded_number_of_padded_tokens() -> None:
    lengths = [9, 2, 8, 2, 3, 100, 2]
    found = list(batches(lengths, 10))
    assert [[lengths[i] for i in batch] for batch in found] == [[2, 2, 2], [3], [8], [9], [100]]
    assert sorted(i for batch in found for i in batch) == list(range(7))
