"""One picture of the engine's race: tokens/s by number of streams."""

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.bench.engine import Results


def plot(results: "Results", file: Path) -> None:
    """A small PNG: tokens/s end to end of every engine, equal lengths."""
    from matplotlib.figure import Figure

    works = [name for name in results if name.isdigit()]
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for peer in results[works[0]]:
        rates = [median(one.rate for one in results[work][peer]) for work in works]
        width = 2.5 if peer.startswith("ours") else 1.2
        axes.plot([int(work) for work in works], rates, marker="o", linewidth=width, label=peer)
    axes.set_xscale("log", base=2)
    axes.set_xticks([int(work) for work in works], works)
    axes.set_xlabel("concurrent requests")
    axes.set_ylabel("tokens/s, prefill included")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(file, dpi=100)
