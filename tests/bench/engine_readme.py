"""The engine's figures in README.md: written from a record between two marks, never by hand."""

from collections.abc import Iterator, Sequence
from statistics import median

from tests.bench.engine_bars import bars
from tests.bench.engine_plot import plot
from tests.bench.engine_rounds import (
    decode_rate,
    first_token,
    measured,
    of,
    peers,
    workloads,
)
from tests.bench.processes import ROOT
from tests.bench.record import Record, Round
from tests.bench.roofline import middle_of

README = ROOT / "README.md"
PICTURE = "tests/bench/plots/engine.png"
BEGIN = "<!-- figures: tests/bench/run.py bars --record tests/bench/plots/engine.jsonl --readme -->"
END = "<!-- end of figures -->"
AT = "32"
"""Streams of the second table."""


def write(record: Record) -> None:
    """README and picture. Raises `ValueError` where README has not both marks."""
    before, begin, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{README.name} lacks {BEGIN} or {END}")
    figures = "\n".join(lines(record))
    README.write_text(f"{before}{begin}\n{figures}\n{end}{after}", encoding="utf-8")
    plot(record.rounds, ROOT / PICTURE)


def lines(record: Record) -> Iterator[str]:
    """Two tables, the picture, the bars."""
    rounds = record.rounds
    names = peers(rounds)
    yield "Tokens/s with prefill, all raced in one run, in medians of one to three rounds:"
    yield ""
    yield from _table(
        ["streams", *map(label, names)],
        [[work, *(_rate(rounds, work, peer) for peer in names)] for work in workloads(rounds)],
    )
    roofline = middle_of(one.roofline for one in rounds)
    yield (
        f"At {AT} streams, beside a roofline of {roofline.flops / 1e9:.0f} GFLOP/s and "
        f"{roofline.bandwidth / 1e9:.0f} GB/s, measured in each round:"
    )
    yield ""
    yield from _table(
        ["", "decode, tokens/s", "of the roofline", "first token p50", "p95", "max"],
        [_at_most_streams(rounds, peer) for peer in names if of(rounds, AT, peer)],
    )
    yield f"![tokens/s and first tokens of the engines at 1 to 32 streams]({PICTURE})"
    yield ""
    yield from _verdicts(record)


def label(peer: str) -> str:
    """A peer's name for a reader."""
    words = {"ours compiled": "compiled step,", "ours transformers": "ours, transformers,"}
    for ours, shown in words.items():
        peer = peer.replace(ours, shown)
    return peer.replace("generate ", "`generate` ")


def _rate(rounds: Sequence[Round], workload: str, peer: str) -> str:
    rates = [one.rate for one in measured(rounds, workload, peer)]
    return f"{median(rates):.0f}" if rates else ""


def _at_most_streams(rounds: Sequence[Round], peer: str) -> list[str]:
    decode = decode_rate(rounds, AT, peer)
    roofline = middle_of(one.roofline for one in rounds)
    bound = roofline.decode_rate(int(AT), peer.rpartition(" ")[2])
    decoded = ["", ""] if decode is None else [f"{decode:.0f}", f"{100 * decode / bound:.0f} %"]
    firsts = [f"{first_token(rounds, AT, peer, percent):.1f} s" for percent in (50, 95, 100)]
    return [label(peer), *decoded, *firsts]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (columns, ["---"] * len(columns), *rows):
        yield f"| {' | '.join(row)} |"
    yield ""


def _verdicts(record: Record) -> Iterator[str]:
    """One table of what was promised, A: transformers as runner, B: the compiled step."""
    yield "What the engine is held to (A: ours on transformers, B: the compiled step):"
    yield ""
    rows = [
        [bar.what, f"{bar.value:.3g}", f"{'≤' if bar.is_most else '≥'} {bar.bar:g}", bar.verdict]
        for bar in bars(record)
        if bar.value is not None
    ]
    yield from _table(["", "measured", "bar", ""], rows)
