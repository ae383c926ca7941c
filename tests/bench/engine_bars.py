"""What was promised of the engine, beside what was measured: `run.py bars --record FILE`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from tests.bench import record
from tests.bench.engine_rounds import (
    BF16,
    OURS_A,
    OURS_A_INT16,
    OURS_B,
    OURS_INT16,
    first_token,
    of,
    prompt_share,
    ratio,
)
from tests.bench.record import Embeddings, Record, Round
from tests.bench.report import Cell, Options, Table, significant

GENERATE = ("generate bfloat16", "generate float32")
"""The first that was measured counts."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One promise."""

    what: str
    value: float | None
    """None: not measured."""
    bar: float
    is_most: bool = False
    """Whether `bar` is the most that `value` may be; else the least."""

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        is_met = self.value <= self.bar if self.is_most else self.value >= self.bar
        return "met" if is_met else "missed"


def run(options: Options) -> list[Table]:
    """All bars, from the record."""
    measured = record.read(options.record)
    rows: list[tuple[Cell, ...]] = [
        (
            bar.what,
            None if bar.value is None else significant(bar.value),
            f"{'≤' if bar.is_most else '≥'} {bar.bar:g}",
            bar.verdict,
        )
        for bar in bars(measured)
    ]
    columns = ("what", "measured", "bar", "verdict")
    return [Table("Bars of the engine", columns, rows, tuple(first_token_notes(measured.rounds)))]


def bars(measured: Record) -> Iterator[Bar]:
    """Ratios are of tokens/s end to end: A is the transformers runner, B the compiled step."""
    rounds, loadings = measured.rounds, measured.loadings
    for name, peer in (("A", OURS_A), ("A int16", OURS_A_INT16)):
        for streams in ("8", "32"):
            value = ratio(rounds, streams, peer, BF16)
            yield Bar(f"{name} ÷ {BF16}, {streams} streams", value, 1.0)
    for streams in ("8", "32", "32 mixed"):
        generate = next((name for name in GENERATE if of(rounds, streams, name)), GENERATE[1])
        yield Bar(
            f"A ÷ {generate}, {streams} streams", ratio(rounds, streams, OURS_A, generate), 1.3
        )
    for name, peer in (("B", OURS_B), ("B int16", OURS_INT16)):
        yield Bar(f"{name} ÷ {BF16}, 32 streams", ratio(rounds, "32", peer, BF16), 1.5)
    for name, peer in (("A", OURS_A), ("B", OURS_B), ("B int16", OURS_INT16)):
        latest = first_token(rounds, "32", peer, 100) if of(rounds, "32", peer) else None
        yield Bar(f"TTFT max, {name}, 32 streams, s", latest, 2.5, is_most=True)
    load = median(one.again for one in loadings) if loadings else None
    yield Bar("load, s", load, 0.5, is_most=True)
    total = median(one.total for one in loadings) if loadings else None
    yield Bar("imports and load, s", total, 4.0, is_most=True)
    for precision in ("float32", "int16"):
        own = [one for one in measured.embeddings if one.precision == precision]
        for batch in (8, 32):
            what = f"embeddings {precision} ÷ sentence-transformers, {batch}"
            yield Bar(what, _embedding(own, batch), 1.5)
        cosines = [one.cosine for one in own if one.cosine is not None]
        yield Bar(f"embeddings {precision}, least cosine", min(cosines, default=None), 0.999)


def _embedding(measured: Sequence[Embeddings], batch: int) -> float | None:
    ratios = [e.ratio for e in measured if e.batch == batch and e.ratio is not None]
    return median(ratios) if ratios else None


def first_token_notes(rounds: list[Round]) -> Iterator[str]:
    """What the time to the last first token could be at best, and is elsewhere."""
    for peer in (OURS_A, OURS_B, OURS_INT16, BF16, "llama.cpp Q4_0"):
        if of(rounds, "32", peer):
            latest = first_token(rounds, "32", peer, 100)
            share = prompt_share(rounds, "32", peer)
            yield (
                f"TTFT max at 32, {peer}: {latest:.1f} s; the prompts' products alone, in float32 "
                f"at the measured GFLOP/s, take {100 * share:.0f} % of that."
            )
