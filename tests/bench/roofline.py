"""How fast these cores could decode: weights read once a step, two FLOP a weight and row."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_SIZE = 2048
_BYTES = 4
_REPEATS = 5


@dataclass(frozen=True, slots=True)
class Roofline:
    """Of float32, on CPU. Keys, values and attention are not counted."""

    flops: float
    """Of a product of large square matrices, a second."""
    bandwidth: float
    """Bytes/s read."""
    num_weights: int
    """That a token passes through: tied embeddings once."""

    @classmethod
    def measure(cls, folder: Path) -> "Roofline":
        """Best of a few; `folder` names the model's tensors."""
        import torch

        square = torch.ones(_SIZE, _SIZE)
        long = torch.ones(64 * _SIZE * _SIZE // 4)
        with torch.inference_mode():
            product, read = _best(lambda: square @ square), _best(long.sum)
        weights = sum(_sizes(file) for file in folder.glob("*.safetensors"))
        return cls(2 * _SIZE**3 / product, long.numel() * _BYTES / read, weights)

    def decode_rate(self, streams: int) -> float:
        """Tokens/s."""
        seconds = max(
            self.num_weights * _BYTES / self.bandwidth, 2 * self.num_weights * streams / self.flops
        )
        return streams / seconds

    def sentence(self) -> str:
        """What the bound was made of."""
        return (
            f"Roofline, float32: {self.flops / 1e9:.0f} GFLOP/s, {self.bandwidth / 1e9:.0f} GB/s, "
            f"{self.num_weights / 1e6:.0f}M weights."
        )


def _best(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _sizes(file: Path) -> int:
    """Numbers in a safetensors file, from its header: 8 bytes of length, then JSON."""
    with file.open("rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    return sum(math.prod(t["shape"]) for name, t in header.items() if name != "__metadata__")
