"""Delivered against provisioned tokens/s, as an independent client of the raw events counts it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvloop
from tests.bench import fairness
from tests.bench.fairness import ENDPOINT, LONG_PROMPTS
from tests.bench.processes import Running, bench_module, call, cpu_seconds, running, settle
from tests.bench.provisioned import FAMILY, MODEL
from tests.bench.report import Cell, Options, Table, significant
from tests.bench.start import ENDPOINTS
from tests.bench.stream import Counted, Streams, count
from tests.bench.workload import Worked, mixed, work

STREAMS = (1, 8, 32, 64)
LONGEST = 8000
"""Tokens of one answer."""

UNREACHABLE = 50_000_000
"""Tokens/s no process reaches: shows what a chunk costs, the budget included."""

PAY_PER_TOKEN = "databricks-meta-llama-3-1-8b-instruct"
"""The same model without a budget."""

FLAT_OUT_SECONDS = 2.0
PACE_PROMPTS = (8, 400, 1500, 3500)
PACE_ANSWER = 16

REAL_RATE = 30
REAL_STREAMS = 4
REAL_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Provision:
    """An endpoint's size, and the tokens in a chunk of the synthetic engine."""

    rate: int
    tokens_per_chunk: int


PROVISIONS = (Provision(970, 1), Provision(9500, 4), Provision(95000, 32))
FLAT_OUT = (Provision(UNREACHABLE, 1), Provision(UNREACHABLE, 32))
COLUMNS = ("provisioned tokens/s", "streams", "requests", "delivered", "error %", "429s", "usage")


def run(options: Options) -> list[Table]:
    """The throttle, its fairness, the pace, what it costs, and the throttle of a real model."""
    return [
        throttle(options),
        shares(options),
        pace(options),
        chunks(options),
        throttling(options),
        real(options),
    ]


def throttle(options: Options) -> Table:
    """Synthetic engine, within what it can deliver."""
    rows: list[tuple[Cell, ...]] = []
    for provision in PROVISIONS:
        with provisioned(provision) as server:
            for streams in STREAMS:
                worked = accuracy(server, provision, streams, options.seconds + 1)
                rows.append(row(provision, streams, worked))
    return Table(
        "Provisioned throughput, synthetic engine",
        COLUMNS,
        rows,
        (
            f"Requests of mixed lengths in and out, over {options.seconds + 1:g} s. Aim: ≤ 1 %.",
            "Usage: tokens by which it differs from what the client counts in prompts and texts.",
        ),
    )


def shares(options: Options) -> Table:
    """Equal streams, and a short request behind long ones."""
    rows: list[tuple[Cell, ...]] = []
    for provision, streams in ((PROVISIONS[0], 8), (PROVISIONS[1], 32), (PROVISIONS[2], 64)):
        with provisioned(provision) as server:
            index, least, most = fairness.equal_shares(server, streams, options.seconds)
            cells: tuple[Cell, ...] = (None, None)
            if provision is PROVISIONS[1]:
                waited, in_order = fairness.short_behind_long(server, provision.rate)
                cells = significant(waited), significant(in_order)
            rows.append((provision.rate, streams, round(index, 5), least, most, *cells))
    return Table(
        "Fairness among equal streams",
        (
            "provisioned tokens/s",
            "streams",
            "Jain's index",
            "least tokens",
            "most",
            "short one's TTFT s",
            "if FIFO",
        ),
        rows,
        (
            "Aim: Jain's index ≥ 0.99.",
            f"The short request comes behind {LONG_PROMPTS} prompts of a second each.",
        ),
    )


def pace(options: Options) -> Table:
    """`pace = "model"`: time to the first token, and for each further one, against the family's."""
    from servemu.catalog import load_catalog

    family = load_catalog({}).families[FAMILY]
    with provisioned(Provision(95000, 1), flags=("--pace=model",)) as server:
        answers = fairness.paced(server, PACE_PROMPTS, 10, PACE_ANSWER)
    firsts, furthers = [], []
    for answer in answers:
        grows = family.prefill_share * answer.prompt_tokens / 3500
        ttft = family.ttft_ms * (1 - family.prefill_share + grows)
        firsts.append(abs(1000 * (answer.first_at - answer.asked_at) - ttft))
        rest = 1000 * (answer.ended_at - answer.first_at) / (family.tpot_ms * (PACE_ANSWER - 1))
        furthers.append(100 * abs(rest - 1))
    return Table(
        'pace = "model", an idle endpoint',
        ("requests", "TTFT error p50 ms", "p95 ms", "most ms", "time per token, error p50 %"),
        [
            (
                len(answers),
                *(significant(_at(firsts, share)) for share in (0.5, 0.95, 1.0)),
                significant(_at(furthers, 0.5)),
            )
        ],
        (f"Prompts of {PACE_PROMPTS} words. Aim: p95 ≤ 5 ms.",),
    )


def chunks(options: Options) -> Table:
    """As fast as it goes: the emulator's overhead a chunk and a token."""
    rows: list[tuple[Cell, ...]] = []
    for provision in FLAT_OUT:
        with provisioned(provision) as server:
            for streams in STREAMS[:2]:
                rows.append(cost(provision, streams, flat_out(server, streams)))
    return Table(
        "Overhead, synthetic engine, a budget that is never reached",
        ("tokens/chunk", "streams", "tokens/s", "events/s", "server CPU µs/event", "µs/token"),
        rows,
        ("Aim: ≥ 95,000 tokens/s with several tokens a chunk.",),
    )


def throttling(options: Options) -> Table:
    """What the budget costs: 8 streams without one, with one that is never reached, and held."""
    rows: list[tuple[Cell, ...]] = []
    unreached = Provision(UNREACHABLE, 1)
    with provisioned(unreached) as server:
        flat_out(server, 8, endpoint=PAY_PER_TOKEN)  # what loads at the first request
        for name, endpoint in (("none", PAY_PER_TOKEN), ("never reached", ENDPOINT)) * 2:
            rows.append((name, *cost(unreached, 8, flat_out(server, 8, endpoint=endpoint))))
    for provision in (Provision(9500, 1), Provision(95000, 32)):
        with provisioned(provision) as server:
            measured = flat_out(server, 8, seconds=options.seconds)
            rows.append((f"{provision.rate:,} tokens/s", *cost(provision, 8, measured)))
    return Table(
        "CPU of throttling, 8 streams",
        ("budget", "tokens/chunk", "streams", "tokens/s", "events/s", "CPU µs/event", "µs/token"),
        rows,
    )


def real(options: Options) -> Table:
    """A real model behind a budget it can fill."""
    provision = Provision(REAL_RATE, 1)
    with provisioned(provision, engine="local") as server:
        worked = accuracy(server, provision, REAL_STREAMS, REAL_SECONDS, primer=16)
        certificate = json.loads(call(server, "GET", f"/_emulator/throughput/{ENDPOINT}"))
    bound = "yes" if certificate["engine_bound"] else "no"
    return Table(
        "Provisioned throughput, the real engine",
        (*COLUMNS[:-1], "engine_bound"),
        [(*row(provision, REAL_STREAMS, worked)[:-1], bound)],
        ("engine_bound, as the certificate has it: the machine is the limit, not the budget.",),
    )


@contextmanager
def provisioned(
    provision: Provision, *, engine: str = "synthetic", flags: tuple[str, ...] = ()
) -> Iterator[Running]:
    """An emulator with one deployed endpoint of that size."""
    command = bench_module(
        "provisioned",
        f"--engine={engine}",
        f"--rate={provision.rate}",
        f"--tokens-per-chunk={provision.tokens_per_chunk}",
        *flags,
    )
    entity = {
        "entity_name": MODEL,
        "entity_version": "2",
        "min_provisioned_throughput": provision.rate,
        "max_provisioned_throughput": provision.rate,
    }
    body = {"name": ENDPOINT, "config": {"served_entities": [entity]}}
    with running(command) as server:
        call(server, "POST", ENDPOINTS, json.dumps(body))
        settle(server)
        yield server


def accuracy(
    server: Running, provision: Provision, streams: int, seconds: float, *, primer: int = 0
) -> Worked:
    """About so many seconds of the budget, in requests of mixed lengths."""
    asks = mixed(round(provision.rate * seconds), streams)
    primer = primer or provision.rate // 2
    return uvloop.run(work(server.port, ENDPOINT, asks, streams, primer))


def row(provision: Provision, streams: int, worked: Worked) -> tuple[Cell, ...]:
    """Delivered tokens/s, and how far from provisioned."""
    delivered = worked.tokens / worked.seconds
    return (
        provision.rate,
        streams,
        len(worked.answers),
        round(delivered, 1),
        round(100 * (delivered / provision.rate - 1), 2) + 0.0,
        worked.refused,
        worked.miscounted,
    )


def flat_out(
    server: Running, streams: int, *, endpoint: str = ENDPOINT, seconds: float = FLAT_OUT_SECONDS
) -> tuple[Counted, float | None]:
    """What came, and the server's CPU seconds meanwhile; the warm-up is no window of its own."""
    whole = Streams(
        port=server.port,
        endpoint=endpoint,
        streams=streams,
        max_tokens=LONGEST,
        warm_up=0.0,
        seconds=seconds,
    )
    before = cpu_seconds(server.pid)
    counted = uvloop.run(count(whole))
    after = cpu_seconds(server.pid)
    return counted, None if before is None or after is None else after - before


def cost(
    provision: Provision, streams: int, measured: tuple[Counted, float | None]
) -> tuple[Cell, ...]:
    """Per event (the finish reason has one of its own) and per token."""
    counted, cpu = measured
    return (
        provision.tokens_per_chunk,
        streams,
        significant(counted.tokens / counted.seconds),
        significant(counted.events / counted.seconds),
        None if cpu is None else significant(cpu * 1e6 / counted.events),
        None if cpu is None else significant(cpu * 1e6 / counted.tokens),
    )


def _at(values: list[float], share: float) -> float:
    return sorted(values)[max(0, round(share * len(values)) - 1)]
