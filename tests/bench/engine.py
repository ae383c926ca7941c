"""The local engine beside its peers on the same weights and cores: load, tokens/s, first token.

Interleaved round by round, so that all see the same machine.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, TypeVar

from tests.bench.engine_peers import (
    PEERS,
    ContinuousBatching,
    Llama,
    Measured,
    Peer,
    Plain,
    Prompts,
    Work,
)
from tests.bench.engine_plot import plot
from tests.bench.report import Cell, Options, Table, middle, significant
from tests.bench.roofline import Roofline

from servemu.settings import Settings
from servemu_engine.base import GenerateRequest, Message, Sampling
from servemu_engine.weights import ModelStore

if TYPE_CHECKING:
    from servemu_engine.local import LocalEngine

T = TypeVar("T")
Results = dict[str, dict[str, list[Measured]]]
"""By workload, then by peer."""

MODEL = "smollm2-135m-instruct"
ONCE = "Once each; ours loads first, and so pays for what both import late."
NO_PEERS = "llama.cpp is not installed: `make peers`."
STREAMS = (1, 4, 8, 16, 32)
QUICK_STREAMS = (8, 32)
NEW_TOKENS = 64
MIXED = (16, 128, 32, 96, 64, 24, 112, 48)
"""Lengths of the answers of the mixed round."""
FEWEST_WORDS = 40
"""Makes prompts of 90 to 113 tokens with the chat template."""

WORDS = (
    "harbour",
    "window",
    "engine",
    "river",
    "lantern",
    "market",
    "copper",
    "winter",
    "garden",
    "bridge",
    "letter",
    "violin",
)


def run(options: Options) -> list[Table]:
    """Load times, then the race."""
    folder = ModelStore(Settings().model_store.expanduser()).ensure(MODEL)
    _, torch_seconds = timed(_import_torch)
    ours, engine_seconds = timed(lambda: Ours(folder, options.dtype))
    _, load_seconds = timed(ours.start)
    prompts = Prompts(folder)
    plain, plain_seconds = timed(lambda: Plain(folder, "float32", prompts))
    peers: list[Peer] = [ours, plain, *_others(folder, prompts, options)]
    try:
        results = race(peers, options)
    finally:
        for peer in peers:
            peer.close()
    roofline = Roofline.measure(folder)
    if options.plot is not None:
        plot(results, options.plot)
    loading: list[tuple[Cell, ...]] = [
        ("import torch", significant(torch_seconds)),
        ("import transformers and the engine", significant(engine_seconds)),
        ("load and first step, ours", significant(load_seconds)),
        ("load, plain from_pretrained", significant(plain_seconds)),
    ]
    return [
        Table("Engine: from nothing to loaded", ("part", "s"), loading, (ONCE,)),
        speed(results, ours.name, roofline, options),
    ]


def _others(folder: Path, prompts: Prompts, options: Options) -> list[Peer]:
    """Slower ones only in the whole bench."""
    others: list[Peer] = []
    if (PEERS / "BF16.gguf").is_file():
        others += [Llama("BF16", prompts), Llama("Q4_0", prompts)]
    if not options.quick:
        others.append(ContinuousBatching(folder, prompts))
        if has_bfloat16():
            bfloat16 = Ours(folder, "bfloat16")
            bfloat16.start()
            others += [bfloat16, Plain(folder, "bfloat16", prompts)]
    return others


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16; elsewhere it is many times slower than float32."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported())


def workloads(streams: Sequence[int], turn: int) -> dict[str, Work]:
    """By name: equal lengths at each number of streams, and mixed lengths at the largest. No
    prompt comes twice, so that a prefix cache finds no more than what all prompts share."""
    most = max(streams)
    lengths = {str(n): (NEW_TOKENS,) * n for n in streams}
    lengths[f"{most} mixed"] = (MIXED * most)[:most]
    begins = itertools.count(1000 + turn * 1000, 100)
    return {name: Work(texts(len(n), next(begins)), n) for name, n in lengths.items()}


def texts(count: int, begin: int = 0) -> tuple[str, ...]:
    """Chat messages that differ from their first words on and ask for long answers."""
    return tuple(
        f"Story {number}: tell it at length, and give each of these its place: "
        + " ".join(
            WORDS[(number + step * (1 + number % 7)) % len(WORDS)]
            for step in range(FEWEST_WORDS + number * 5 % 24)
        )
        for number in range(begin, begin + count)
    )


def race(peers: Sequence[Peer], options: Options) -> Results:
    """A short batch of each goes first, uncounted."""
    for peer in peers:
        peer.answer(Work(texts(2), (8, 8)))
    streams = QUICK_STREAMS if options.quick else STREAMS
    results: Results = {name: {p.name: [] for p in peers} for name in workloads(streams, 0)}
    for number in range(options.rounds):
        for name, work in workloads(streams, number).items():
            for peer in peers:
                results[name][peer.name].append(peer.answer(work))
    return results


class Ours:
    """The local engine, each request read by a reader of its own."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self.name = f"ours {dtype}"
        self._engine = _engine(folder, dtype)

    def start(self) -> None:
        self._engine.start()

    def close(self) -> None:
        self._engine.close()

    def answer(self, work: Work) -> Measured:
        return asyncio.run(self._answer(work))

    async def _answer(self, work: Work) -> Measured:
        began = time.perf_counter()

        async def read(text: str, most: int) -> list[tuple[float, int]]:
            sampling = Sampling(max_tokens=most, temperature=0.0)
            request = GenerateRequest(messages=(Message("user", text),), sampling=sampling)
            async with self._engine.submit(self._engine.prepare(request)) as generation:
                return [(time.perf_counter() - began, c.num_tokens) async for c in generation]

        answers = await asyncio.gather(*map(read, work.texts, work.new_tokens))
        seconds = time.perf_counter() - began
        firsts = tuple(chunks[0][0] for chunks in answers)
        late = sum(n for chunks in answers for at, n in chunks if at > max(firsts))
        return Measured(sum(n for chunks in answers for _, n in chunks), seconds, firsts, late)


def speed(results: Results, ours: str, roofline: Roofline, options: Options) -> Table:
    """Medians; the ratio is that of each round's pair."""
    rows: list[tuple[Cell, ...]] = []
    for workload, by_peer in results.items():
        for peer, rounds in by_peer.items():
            ratios = [a.rate / b.rate for a, b in zip(by_peer[ours], rounds, strict=True)]
            decoding = [one.decode_rate for one in rounds if one.decode_rate is not None]
            streams = int(workload.split()[0])
            bound = roofline.decode_rate(streams)
            rows.append(
                (
                    workload,
                    peer,
                    middle([one.rate for one in rounds]),
                    significant(median(ratios)),
                    middle(decoding) if decoding else None,
                    significant(median(decoding) / bound) if decoding else None,
                    *_first_tokens(rounds),
                    rounds[0].tokens,
                )
            )
    columns = ("streams", "engine", "tokens/s", "ours ÷ it", "decode tokens/s", "÷ roofline")
    notes = (
        f"Median of {options.rounds} interleaved rounds, {NEW_TOKENS} new tokens, no HTTP; tokens/s"
        " over the whole wall, prefill included; decode: after the last first token.",
        "The prompts (90 to 113 tokens) share only the chat template, which a prefix cache keeps.",
        roofline.sentence(),
        *(() if (PEERS / "BF16.gguf").is_file() else (NO_PEERS,)),
    )
    last = ("TTFT p50 s", "p95", "max", "tokens")
    return Table("Engine against its peers", (*columns, *last), rows, notes)


def _first_tokens(rounds: Sequence[Measured]) -> tuple[Cell, Cell, Cell]:
    """Median over the rounds of the p50, p95 and largest time to the first token."""
    firsts = [one.firsts for one in rounds if one.firsts]
    if not firsts:
        return None, None, None
    p95s = [quantiles(f, n=20, method="inclusive")[-1] if len(f) > 1 else f[0] for f in firsts]
    return middle([median(f) for f in firsts]), middle(p95s), middle([max(f) for f in firsts])


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Its result and its seconds."""
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def _import_torch() -> None:
    import torch

    assert torch.__version__


def _engine(folder: Path, dtype: str) -> "LocalEngine":
    from servemu_engine.local import LocalEngine, LocalOptions

    return LocalEngine(folder, MODEL, LocalOptions(dtype=dtype))
