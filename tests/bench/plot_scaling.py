"""One picture of autoscaling: a ramp, a burst and an idle hour, on simulated time.

`python tests/bench/plot_scaling.py` drives the emulator's own queue and autoscaler and writes
`tests/bench/plots/scaling.png`.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from servemu.catalog import load_catalog
from servemu.settings import Settings
from servemu.throughput.planning import candidates
from servemu.throughput.simulation import Arrival, Sample, Simulation

MODEL = "system.ai.meta_llama_v3_1_8b_instruct"
CHUNK = 19_000
FILE = Path(__file__).parent / "plots" / "scaling.png"
SAMPLE_SECONDS = 10.0
MINUTE = 60.0
END = 165 * MINUTE


def load(seconds: float) -> float:
    """Tokens/s that clients ask for: a ramp, a burst, an hour of nothing, one request's worth."""
    minutes = seconds / MINUTE
    if minutes < 30:
        return minutes / 30 * 2.6 * CHUNK
    if minutes < 60:
        return 2.6 * CHUNK if minutes < 45 else 1.2 * CHUNK
    if minutes < 70:
        return 6.0 * CHUNK
    if minutes < 75:
        return 0.8 * CHUNK
    return 0.5 * CHUNK if 135 <= minutes < 150 else 0.0


def arrivals(rate: Callable[[float], float], until: float) -> list[Arrival]:
    """Requests of about 3500 tokens in and 300 out, at random times."""
    draw = random.Random(5)
    made, now = [], 0.0
    while now < until:
        requests_per_second = rate(now) / 3800
        if requests_per_second < 1e-3:
            now += 1.0
            continue
        now += draw.expovariate(requests_per_second)
        share = draw.uniform(0.5, 1.5)
        made.append(Arrival(now, round(3500 * share), round(300 * share)))
    return made


def per_second(samples: Sequence[Sample], name: str, width: int = 6) -> list[float]:
    """How quickly a count grew, over the last minute."""
    counts: list[float] = [getattr(sample, name) for sample in samples]
    return [
        (count - counts[max(0, number - width)]) / (SAMPLE_SECONDS * width)
        for number, count in enumerate(counts)
    ]


def main() -> None:
    model = load_catalog().models[MODEL]
    [candidate] = candidates(model, [f"0:{4 * CHUNK}"], Settings(), scale_to_zero=True)
    simulation = Simulation(candidate.size, sample_seconds=SAMPLE_SECONDS)
    requests = arrivals(load, END)
    outcome = simulation.run(requests, until=END)
    draw(outcome.samples, f"{len(requests)} requests, {outcome.refused} got a 429")


def draw(samples: Sequence[Sample], title: str) -> None:
    """Three panels above each other: tokens/s, replicas, queue."""
    minutes = [sample.at / MINUTE for sample in samples]
    figure = Figure(figsize=(8, 5.6), layout="constrained")
    rates, replicas, queue = figure.subplots(3, sharex=True, height_ratios=(3, 1.3, 1.3))
    provisioned = [sample.replicas * CHUNK / 1000 for sample in samples]
    rates.fill_between(minutes, provisioned, step="post", color="0.9", label="provisioned")
    for name, label, color in (
        ("offered", "offered", "tab:orange"),
        ("paid", "delivered", "tab:blue"),
    ):
        values = [value / 1000 for value in per_second(samples, name)]
        rates.plot(minutes, values, label=label, color=color, linewidth=1.3)
    rates.set_ylabel("1000 tokens/s")
    rates.legend(fontsize=8, loc="upper right")
    rates.set_title(f"Llama 3.1 8B, 0 to 4 chunks of {CHUNK} tokens/s: {title}", fontsize=9)
    replicas.step(minutes, [sample.replicas for sample in samples], where="post", color="tab:green")
    replicas.set_ylabel("replicas")
    replicas.set_yticks(range(5))
    queue.plot(minutes, [sample.waiting / 1000 for sample in samples], color="tab:red", linewidth=1)
    queue.set_ylabel("1000 tokens\nwaiting")
    queue.set_xlabel("minutes")
    for axes in (rates, replicas, queue):
        axes.grid(alpha=0.3)
        axes.set_xlim(0, END / MINUTE)
    FILE.parent.mkdir(exist_ok=True)
    figure.savefig(FILE, dpi=90)


if __name__ == "__main__":
    main()
