"""Rounds of the engine's race: kept in a file, piece by piece, and made into a table."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles

from tests.bench.engine_peers import Measured
from tests.bench.report import Cell, Table, middle, significant
from tests.bench.roofline import Roofline

COLUMNS = ("streams", "engine", "tokens/s", "ours ÷ it", "decode tokens/s", "÷ roofline")
FIRSTS = ("TTFT p50 s", "p95", "max", "tokens", "rounds")


@dataclass(frozen=True, slots=True)
class Round:
    """One workload, answered by one engine after the other."""

    workload: str
    by_peer: dict[str, Measured]


def append(file: Path, rounds: Sequence[Round]) -> None:
    """A line of JSON each."""
    with file.open("a", encoding="utf-8") as opened:
        for one in rounds:
            opened.write(json.dumps(asdict(one)) + "\n")


def read(file: Path) -> list[Round]:
    """All that were ever appended."""
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [
        Round(
            line["workload"],
            {
                peer: Measured(**{**m, "firsts": tuple(m["firsts"])})
                for peer, m in line["by_peer"].items()
            },
        )
        for line in lines
    ]


def workloads(rounds: Sequence[Round]) -> list[str]:
    """From few streams to many."""
    return sorted({one.workload for one in rounds}, key=lambda name: (len(name), name))


def of(rounds: Sequence[Round], workload: str, peer: str) -> list[Round]:
    """Those of a workload that `peer` took part in."""
    return [one for one in rounds if one.workload == workload and peer in one.by_peer]


def peers(rounds: Sequence[Round]) -> list[str]:
    """In the order in which they first ran."""
    return list(dict.fromkeys(peer for one in rounds for peer in one.by_peer))


def speed(rounds: Sequence[Round], ours: str, roofline: Roofline, notes: tuple[str, ...]) -> Table:
    """Medians; the ratio is that of each round's pair."""
    rows = [
        _row(of(rounds, workload, peer), (ours, peer), roofline)
        for workload in workloads(rounds)
        for peer in peers(rounds)
        if of(rounds, workload, peer)
    ]
    notes = (*notes, roofline.sentence())
    return Table("Engine against its peers", (*COLUMNS, *FIRSTS), rows, notes)


def _row(rounds: Sequence[Round], pair: tuple[str, str], roofline: Roofline) -> tuple[Cell, ...]:
    ours, peer = pair
    workload = rounds[0].workload
    measured = [one.by_peer[peer] for one in rounds]
    ratios = [one.by_peer[ours].rate / one.by_peer[peer].rate for one in rounds]
    decoding = [one.decode_rate for one in measured if one.decode_rate is not None]
    bound = roofline.decode_rate(int(workload.split()[0]))
    return (
        workload,
        peer,
        middle([one.rate for one in measured]),
        significant(median(ratios)),
        middle(decoding) if decoding else None,
        significant(median(decoding) / bound) if decoding else None,
        *_first_tokens(measured),
        measured[0].tokens,
        len(measured),
    )


def _first_tokens(measured: Sequence[Measured]) -> tuple[Cell, Cell, Cell]:
    """Median over the rounds of the p50, p95 and largest time to the first token."""
    firsts = [one.firsts for one in measured if one.firsts]
    if not firsts:
        return None, None, None
    p95s = [quantiles(f, n=20, method="inclusive")[-1] if len(f) > 1 else f[0] for f in firsts]
    return middle([median(f) for f in firsts]), middle(p95s), middle([max(f) for f in firsts])
