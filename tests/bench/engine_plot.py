"""One picture of the engine's race: tokens/s by number of streams, and the first tokens at most."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.engine_rounds import first_token, measured, of, peers, workloads
from tests.bench.record import Round


def plot(rounds: Sequence[Round], file: Path) -> None:
    """A small PNG of every engine, equal lengths."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    works = [name for name in workloads(rounds) if name.isdigit()]
    for peer in peers(rounds):
        ran = [work for work in works if of(rounds, work, peer)]
        rates = [median(one.rate for one in measured(rounds, work, peer)) for work in ran]
        latest = [first_token(rounds, work, peer, 100) for work in ran]
        style = {"marker": "o", "linewidth": 2.5 if peer.startswith("ours") else 1.2}
        left.plot([int(work) for work in ran], rates, label=peer, **style)
        right.plot([int(work) for work in ran], latest, label=peer, **style)
    for axes, title in ((left, "tokens/s, prefill included"), (right, "last first token, s")):
        _finish(axes, works, title)
    right.set_yscale("log")
    left.set_ylim(bottom=0)
    left.legend(fontsize=7)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=100)


def _finish(axes: Any, works: Sequence[str], title: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks([int(work) for work in works], works)
    axes.set_xlabel("concurrent requests")
    axes.set_ylabel(title)
    axes.grid(alpha=0.3)
