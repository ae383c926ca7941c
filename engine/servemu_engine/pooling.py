"""Hidden states to one vector a text: padding, pooling, and the change of dimension."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from servemu_engine.errors import LoadFailed

if TYPE_CHECKING:
    import torch

Pooling = Literal["cls", "mean", "max", "last"]
Rows = Sequence[Sequence[int]]
"""Token ids of texts."""

_MODES: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}
_KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")
_PROJECTION_SEED = 20240229
"""Pinned: vectors a user keeps must stay comparable with tomorrow's."""


def read_pooling(folder: Path, name: str) -> Pooling:
    """How the weights want to be pooled: their `1_Pooling/config.json`, else by family.

    Raises `LoadFailed` for a way that is not known here.
    """
    for module in _read_json(folder, "modules.json") or []:
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind not in _KNOWN_MODULES:
            raise LoadFailed(f"model {name!r}: its module {kind!r} is not supported")
    config = _read_json(folder, "1_Pooling/config.json")
    if config is None:
        return _pooling_of_family(folder, name)
    modes = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    if len(modes) != 1 or modes[0] not in _MODES:
        raise LoadFailed(f"model {name!r}: pooling by {modes} is not supported")
    return _MODES[modes[0]]


def read_window(folder: Path, context_length: int) -> int:
    """Tokens a text may have: `max_seq_length` of sentence-transformers, if it is smaller."""
    config = _read_json(folder, "sentence_bert_config.json") or {}
    return min(int(config.get("max_seq_length") or context_length), context_length)


def _pooling_of_family(folder: Path, name: str) -> Pooling:
    """GTE v1.5 and BGE use the first token, decoders the last, all others the mean."""
    config = _read_json(folder, "config.json") or {}
    described = " ".join([name, folder.name, str(config.get("_name_or_path", ""))]).lower()
    if "gte" in described or "bge" in described:
        return "cls"
    architectures = config.get("architectures") or [""]
    return "last" if str(architectures[0]).endswith("ForCausalLM") else "mean"


def _read_json(folder: Path, file: str) -> Any:
    try:
        return json.loads((folder / file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise LoadFailed(f"model {folder.name!r}: {file} is not valid JSON: {error}") from error


def batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Group texts of like length: positions in `lengths`, at most `max_tokens` with padding."""
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[position] * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class Alike:
    """`count` texts of `length` tokens each, side by side from token `begin` on."""

    begin: int
    count: int
    length: int

    def of(self, tokens: "torch.Tensor") -> "torch.Tensor":
        """Those of `[tokens, width]`: `[count, length, width]`."""
        part = tokens[self.begin : self.begin + self.count * self.length]
        return part.view(self.count, self.length, -1)


def alike(rows: Rows) -> Iterator[Alike]:
    """Neighbours of one length: most of the texts of a batch, which is sorted by length."""
    begin = 0
    for length, group in groupby(map(len, rows)):
        run = Alike(begin, len(list(group)), length)
        yield run
        begin += run.count * length


def pad(rows: Rows, pad_id: int, device: str) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Token ids and mask, both `[batch, longest]`, padded on the right."""
    import torch

    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad_id] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids.to(device), mask.to(device)


def pool(hidden: "torch.Tensor", mask: "torch.Tensor", pooling: Pooling) -> "torch.Tensor":
    """`[batch, length, width]` to float32 `[batch, width]`; padding has no part in it."""
    import torch

    hidden = hidden.float()
    match pooling:
        case "cls":
            return hidden[:, 0]
        case "last":
            return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
        case "max":
            return hidden.masked_fill(mask.unsqueeze(-1) == 0, float("-inf")).amax(1)
        case "mean":
            weights = mask.unsqueeze(-1).float()
            return (hidden * weights).sum(1) / weights.sum(1)


def pool_flat(hidden: "torch.Tensor", runs: Iterable[Alike], pooling: Pooling) -> "torch.Tensor":
    """`[tokens, width]` of texts one after the other to float32 `[texts, width]`."""
    import torch

    parts = [run.of(hidden) for run in runs]
    return torch.cat(
        [pool(part, part.new_ones(part.shape[:2], dtype=torch.long), pooling) for part in parts]
    )


def projection(width: int, dimensions: int) -> "torch.Tensor":
    """A fixed random matrix `[width, dimensions]` of orthonormal rows (or columns, if shrinking).

    Growing keeps every norm and dot product exactly. Shrinking cannot; it is scaled so that
    norms and dot products are kept on average over directions (Johnson-Lindenstrauss).
    """
    import torch

    generator = torch.Generator().manual_seed(_PROJECTION_SEED)
    long, short = max(width, dimensions), min(width, dimensions)
    normal = torch.randn(long, short, generator=generator, dtype=torch.float64)
    factors = torch.linalg.qr(normal)
    signs = torch.sign(torch.diagonal(factors.R))  # else the LAPACK at hand chooses them
    orthonormal: torch.Tensor = factors.Q * signs
    scaled = orthonormal.T if dimensions >= width else orthonormal * (width / dimensions) ** 0.5
    return scaled.float().contiguous()
