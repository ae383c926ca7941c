"""The engine's race as tables: medians over rounds, ratios of pairs within a round."""

from collections.abc import Sequence
from statistics import median, quantiles

from tests.bench.engine_peers import Measured
from tests.bench.engine_work import NEW_TOKENS, WORKLOADS
from tests.bench.record import Round
from tests.bench.report import Cell, Table, middle, significant
from tests.bench.roofline import Roofline, middle_of

BF16 = "llama.cpp BF16"
OURS_A = "ours transformers float32"
OURS_B = "ours compiled float32"
OURS_INT16 = "ours compiled int16"
OURS_A_INT16 = "ours transformers int16"
SPEED = ("streams", "engine", "tokens/s", "from-to", "÷ BF16", "decode", "÷ roofline", "rounds")
FIRSTS = ("streams", "engine", "p50 s", "p95", "max", "from-to", "roofline ÷ max")
NOTES = (
    f"{NEW_TOKENS} new tokens each, greedy, no HTTP; tokens/s over the whole wall, prefill "
    "included; decode: after the last first token. Medians; ratios of pairs of one round.",
    "The prompts (90 to 113 tokens) share only the chat template, which a prefix cache keeps; "
    "mixed: prompts of 52 to 390 tokens, answers of 8 to 128.",
)


def workloads(rounds: Sequence[Round]) -> list[str]:
    """From few streams to many."""
    return [name for name in WORKLOADS if any(one.workload == name for one in rounds)]


def of(rounds: Sequence[Round], workload: str, *peers: str) -> list[Round]:
    """Those of a workload that all of `peers` took part in."""
    return [r for r in rounds if r.workload == workload and all(p in r.by_peer for p in peers)]


def peers(rounds: Sequence[Round]) -> list[str]:
    """In the order in which they first ran."""
    return list(dict.fromkeys(peer for one in rounds for peer in one.by_peer))


def measured(rounds: Sequence[Round], workload: str, peer: str) -> list[Measured]:
    """Of every round that it took part in."""
    return [one.by_peer[peer] for one in of(rounds, workload, peer)]


def ratio(rounds: Sequence[Round], workload: str, peer: str, other: str) -> float | None:
    """Tokens/s end to end of `peer` ÷ those of `other`: the median of rounds with both."""
    both = [one.by_peer for one in of(rounds, workload, peer, other)]
    return median(one[peer].rate / one[other].rate for one in both) if both else None


def speed(rounds: Sequence[Round], notes: tuple[str, ...]) -> Table:
    """A row for each workload and engine."""
    roofline = middle_of(one.roofline for one in rounds) if rounds else None
    rows = [
        _speed_row(rounds, workload, peer)
        for workload in workloads(rounds)
        for peer in peers(rounds)
        if of(rounds, workload, peer)
    ]
    sentences = (roofline.sentence(),) if roofline else ()
    return Table("Engine against its peers: tokens/s", SPEED, rows, (*NOTES, *sentences, *notes))


def _speed_row(rounds: Sequence[Round], workload: str, peer: str) -> tuple[Cell, ...]:
    ran = measured(rounds, workload, peer)
    rates = [one.rate for one in ran]
    to_bf16 = ratio(rounds, workload, peer, BF16)
    decode = decode_rate(rounds, workload, peer)
    bound = middle_of(one.roofline for one in rounds).decode_rate(
        int(workload.split()[0]), peer.rpartition(" ")[2]
    )
    return (
        workload,
        peer,
        middle(rates),
        span(rates),
        None if to_bf16 is None else significant(to_bf16),
        None if decode is None else significant(decode),
        None if decode is None or " " in workload else significant(decode / bound),
        len(ran),
    )


def decode_rate(rounds: Sequence[Round], workload: str, peer: str) -> float | None:
    """Tokens/s once every answer has begun."""
    rates = [one.decode_rate for one in measured(rounds, workload, peer)]
    known = [rate for rate in rates if rate is not None]
    return median(known) if known else None


def first_tokens(rounds: Sequence[Round]) -> Table:
    """Times to the first token, beside those that the prompts' products alone would take."""
    rows = [
        _first_row(rounds, workload, peer)
        for workload in workloads(rounds)
        for peer in peers(rounds)
        if of(rounds, workload, peer)
    ]
    note = "Medians over the rounds of each one's p50, p95 and largest; all requests come at once."
    return Table("Engine against its peers: time to first token", FIRSTS, rows, (note,))


def _first_row(rounds: Sequence[Round], workload: str, peer: str) -> tuple[Cell, ...]:
    latest = [max(one.firsts) for one in measured(rounds, workload, peer)]
    p50, p95 = (first_token(rounds, workload, peer, percent) for percent in (50, 95))
    return (
        workload,
        peer,
        significant(p50),
        significant(p95),
        middle(latest),
        span(latest),
        significant(prompt_share(rounds, workload, peer)),
    )


def first_token(rounds: Sequence[Round], workload: str, peer: str, percent: int) -> float:
    """Seconds: the median over the rounds of a percentile of each; 100: of the largest."""
    return median(_percentile(one.firsts, percent) for one in measured(rounds, workload, peer))


def _percentile(seconds: Sequence[float], percent: int) -> float:
    if percent == 100 or len(seconds) == 1:
        return max(seconds)
    return quantiles(seconds, n=100, method="inclusive")[percent - 1]


def prompt_share(rounds: Sequence[Round], workload: str, peer: str) -> float:
    """Of the largest time to a first token, what the prompts' products take at the roofline, what
    all prompts begin with not counted."""
    roofline: Roofline = middle_of(one.roofline for one in rounds)
    return median(
        roofline.prompt_seconds(_own_tokens(one), len(one.prompt_tokens))
        / max(one.by_peer[peer].firsts)
        for one in of(rounds, workload, peer)
    )


def _own_tokens(one: Round) -> int:
    return sum(one.prompt_tokens) - one.shared_tokens * len(one.prompt_tokens)


def span(values: Sequence[float]) -> str:
    """From the least to the greatest."""
    return f"{significant(min(values)):g}-{significant(max(values)):g}"
