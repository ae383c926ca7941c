"""One picture of the engine's race: tokens/s by number of streams."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.bench.engine_rounds import Round, of, peers, workloads


def plot(rounds: Sequence[Round], file: Path) -> None:
    """A small PNG: tokens/s end to end of every engine, equal lengths."""
    from matplotlib.figure import Figure

    works = [name for name in workloads(rounds) if name.isdigit()]
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for peer in peers(rounds):
        ran = [work for work in works if of(rounds, work, peer)]
        rates = [median(one.by_peer[peer].rate for one in of(rounds, work, peer)) for work in ran]
        width = 2.5 if peer.startswith("ours") else 1.2
        axes.plot([int(work) for work in ran], rates, marker="o", linewidth=width, label=peer)
    axes.set_xscale("log", base=2)
    axes.set_xticks([int(work) for work in works], works)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("concurrent requests")
    axes.set_ylabel("tokens/s, prefill included")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=100)
