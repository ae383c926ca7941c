"""How fast these cores could go: weights read once a step, two FLOP a weight and row."""

import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

_SIZE = 2048
_BYTES = 4
_REPEATS = 5
_HEADS = ("lm_head.weight", "model.embed_tokens.weight")
"""The tensor that makes logits of the last state: its own, or the embeddings'."""

BYTES_PER_WEIGHT = {"Q4_0": 4.5 / 8, "BF16": 2.0, "bfloat16": 2.0, "int16": 2.0}
"""By the precision at the end of a peer's name; else float32's."""


@dataclass(frozen=True, slots=True)
class Roofline:
    """Of float32 products, on CPU. Keys, values and attention are not counted."""

    flops: float
    """Of a product of large square matrices, a second."""
    bandwidth: float
    """Bytes/s read."""
    num_weights: int
    """That a token passes through: tied embeddings once."""
    num_head: int
    """Those of them that only the last token of a prompt passes through."""

    @classmethod
    def measure(cls, folder: Path) -> "Roofline":
        """Best of a few; `folder` names the model's tensors."""
        import torch

        square = torch.ones(_SIZE, _SIZE)
        long = torch.ones(64 * _SIZE * _SIZE // 4)
        with torch.inference_mode():
            product, read = _best(lambda: square @ square), _best(long.sum)
        sizes = _sizes(folder)
        head = next((sizes[name] for name in _HEADS if name in sizes), 0)
        flops, bandwidth = 2 * _SIZE**3 / product, long.numel() * _BYTES / read
        return cls(round(flops), round(bandwidth), sum(sizes.values()), head)

    def decode_rate(self, streams: int, precision: str = "float32") -> float:
        """Tokens/s of weights in so many bytes, computed with as float32 is."""
        num_bytes = self.num_weights * BYTES_PER_WEIGHT.get(precision, _BYTES)
        seconds = max(num_bytes / self.bandwidth, 2 * self.num_weights * streams / self.flops)
        return streams / seconds

    def prompt_seconds(self, prompt_tokens: int, answers: int) -> float:
        """Of so many tokens of prompts, and the first token of each answer."""
        body = self.num_weights - self.num_head
        products = body * prompt_tokens + self.num_head * answers
        return 2 * products / self.flops

    def sentence(self) -> str:
        """What the bound was made of."""
        return (
            f"Roofline: {self.flops / 1e9:.0f} GFLOP/s in float32, {self.bandwidth / 1e9:.0f} GB/s "
            f"at each precision's bytes, {self.num_weights / 1e6:.0f}M weights, no attention."
        )


def middle_of(measured: Iterable[Roofline]) -> Roofline:
    """The median of each figure; of at least one."""
    all_of_them = list(measured)
    first = all_of_them[0]
    flops = median(one.flops for one in all_of_them)
    bandwidth = median(one.bandwidth for one in all_of_them)
    return Roofline(flops, bandwidth, first.num_weights, first.num_head)


def _best(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _sizes(folder: Path) -> dict[str, int]:
    """Numbers in each tensor, from the files' headers: 8 bytes of length, then JSON."""
    sizes: dict[str, int] = {}
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as opened:
            header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        header.pop("__metadata__", None)
        sizes |= {name: math.prod(tensor["shape"]) for name, tensor in header.items()}
    return sizes
