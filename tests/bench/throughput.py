"""Delivered against provisioned tokens/s, as an independent streaming client counts them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import uvloop
from tests.bench.processes import Running, bench_module, call, cpu_seconds, running, settle
from tests.bench.provisioned import MODEL
from tests.bench.report import Cell, Options, Table, significant
from tests.bench.start import ENDPOINTS
from tests.bench.stream import Counted, Streams, count

ENDPOINT = "bench"
STREAMS = (1, 8, 32)
WARM_UP = 0.5
"""Seconds; what an idle budget had saved is spent by then."""

LONGEST = 8000
"""Tokens of one answer."""

UNREACHABLE = 50_000_000
"""Tokens/s no process reaches: shows what a chunk costs, the budget included."""

FLAT_OUT_SECONDS = 2.0

REAL_RATE = 100
REAL_STREAMS = 8
REAL_ANSWER = 128


@dataclass(frozen=True, slots=True)
class Provision:
    """An endpoint's size, and the tokens in a chunk of the synthetic engine."""

    rate: int
    tokens_per_chunk: int


PROVISIONS = (Provision(970, 1), Provision(9500, 4), Provision(95000, 32))
FLAT_OUT = (Provision(UNREACHABLE, 1), Provision(UNREACHABLE, 32))


def run(options: Options) -> list[Table]:
    """The throttle, what a chunk costs, and the throttle before a real model."""
    return [throttle(options), chunks(options), real(options)]


def throttle(options: Options) -> Table:
    """Synthetic engine, within what it can deliver."""
    rows: list[tuple[Cell, ...]] = []
    for provision in PROVISIONS:
        with provisioned(provision) as server:
            for streams in STREAMS:
                length = min(LONGEST, max(64, provision.rate // streams))
                rows.append(accuracy(provision, asked(server, streams, length, options)))
    return Table(
        "Provisioned throughput, synthetic engine",
        ("provisioned tokens/s", "streams", "tokens/chunk", "delivered", "error %", "429s"),
        rows,
        (
            f"Input + output tokens of usage over {options.seconds:g} s. Aim: error ≤ 1 %.",
            "A 429 is asked again after its Retry-After.",
        ),
    )


def chunks(options: Options) -> Table:
    """As fast as it goes: the emulator's overhead a chunk and a token."""
    rows: list[tuple[Cell, ...]] = []
    for provision in FLAT_OUT:
        with provisioned(provision) as server:
            for streams in STREAMS[:2]:
                work = asked(server, streams, LONGEST, options, seconds=FLAT_OUT_SECONDS)
                rows.append(cost(provision, streams, flat_out(server, work)))
    return Table(
        "Overhead, synthetic engine, a budget that is never reached",
        ("tokens/chunk", "streams", "tokens/s", "events/s", "server CPU µs/event", "µs/token"),
        rows,
        ("Aim: ≥ 95,000 tokens/s with several tokens a chunk.",),
    )


def real(options: Options) -> Table:
    """A real model behind a budget it can fill."""
    provision = Provision(REAL_RATE, 1)
    with provisioned(provision, engine="local") as server:
        # Twice as long: here a prompt is a good part of what comes in a second.
        seconds = 2 * options.seconds
        streams = asked(server, REAL_STREAMS, REAL_ANSWER, options, seconds=seconds)
        row = accuracy(provision, streams)
    return Table(
        "Provisioned throughput, the real engine",
        ("provisioned tokens/s", "streams", "tokens/chunk", "delivered", "error %", "429s"),
        [row],
        (
            f"Over {seconds:g} s. A prompt of about 40 tokens shows at once in usage but is paid "
            f"bit by bit: ± {4000 / (REAL_RATE * seconds):.0f} %.",
            "Far below the provisioned rate: the machine is the limit, not the budget.",
        ),
    )


@contextmanager
def provisioned(provision: Provision, *, engine: str = "synthetic") -> Iterator[Running]:
    """An emulator with one deployed endpoint of that size."""
    command = bench_module(
        "provisioned",
        f"--engine={engine}",
        f"--rate={provision.rate}",
        f"--tokens-per-chunk={provision.tokens_per_chunk}",
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


def asked(
    server: Running, streams: int, max_tokens: int, options: Options, *, seconds: float = 0.0
) -> Streams:
    """The client's part; by default over a whole window."""
    return Streams(
        port=server.port,
        endpoint=ENDPOINT,
        streams=streams,
        max_tokens=max_tokens,
        warm_up=WARM_UP,
        seconds=seconds or options.seconds,
    )


def accuracy(provision: Provision, streams: Streams) -> tuple[Cell, ...]:
    """Delivered tokens/s, and how far from provisioned."""
    counted = uvloop.run(count(streams))
    delivered = counted.tokens / counted.seconds
    return (
        provision.rate,
        streams.streams,
        provision.tokens_per_chunk,
        significant(delivered) if delivered < 1000 else float(round(delivered)),
        round(100 * (delivered / provision.rate - 1), 2) + 0.0,
        counted.refused,
    )


def flat_out(server: Running, streams: Streams) -> tuple[Counted, float | None]:
    """What came, and the server's CPU seconds meanwhile; the warm-up is no window of its own."""
    whole = replace(streams, warm_up=0.0)
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
