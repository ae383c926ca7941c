"""The local engine beside its peers on the same weights and cores: load, tokens/s, first token.

Interleaved round by round, so that all see the same machine. A whole run takes long: `--streams 8`
measures a piece of it, `--record FILE` adds the piece to those before, and the table and the
picture are those of all pieces.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
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
    num_cores,
)
from tests.bench.engine_plot import plot
from tests.bench.engine_rounds import Round, append, read, speed
from tests.bench.report import Cell, Options, Table, significant
from tests.bench.roofline import Roofline

from servemu.settings import Settings
from servemu_engine.base import GenerateRequest, Message, Sampling
from servemu_engine.weights import ModelStore

if TYPE_CHECKING:
    from servemu_engine.runners import RunnerChoice

T = TypeVar("T")

MODEL = "smollm2-135m-instruct"
ONCE = "Once each; ours loads first, and so pays for what both import late."
NO_PEERS = "llama.cpp is not installed: `make peers`."
WORKLOADS = ("1", "4", "8", "16", "32", "32 mixed")
QUICK_WORKLOADS = ("8", "32")
ENGINES = ("transformers", "generate", "batching", "llama")
"""Others than the compiled step, which runs in every round: the ratios are to it."""
NEW_TOKENS = 64
MIXED = (16, 128, 32, 96, 64, 24, 112, 48)
"""Lengths of the answers of a mixed workload."""
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
    ours, engine_seconds = timed(lambda: Ours(folder, options.dtype, "compiled"))
    _, load_seconds = timed(ours.start)
    prompts = Prompts(folder)
    plain, plain_seconds = timed(lambda: Plain(folder, "float32", prompts))
    others: list[Peer] = [plain] if _is_asked(options, "generate") else []
    peers: list[Peer] = [ours, *others, *_others(folder, prompts, options)]
    try:
        rounds = race(peers, options)
    finally:
        for peer in peers:
            peer.close()
    if options.record is not None:
        append(options.record, rounds)
        rounds = read(options.record)
    if options.plot is not None:
        plot(rounds, options.plot)
    loading: list[tuple[Cell, ...]] = [
        ("import torch", significant(torch_seconds)),
        ("import transformers and the engine", significant(engine_seconds)),
        ("load, check and start, ours", significant(load_seconds)),
        ("load, plain from_pretrained", significant(plain_seconds)),
    ]
    return [
        Table("Engine: from nothing to loaded", ("part", "s"), loading, (ONCE,)),
        speed(rounds, ours.name, Roofline.measure(folder), _notes()),
    ]


def _notes() -> tuple[str, ...]:
    return (
        f"{NEW_TOKENS} new tokens each, greedy, no HTTP; tokens/s over the whole wall, prefill "
        "included; decode: after the last first token. Medians; ratios of pairs of one round.",
        "The prompts (90 to 113 tokens) share only the chat template, which a prefix cache keeps.",
        *(() if (PEERS / "BF16.gguf").is_file() else (NO_PEERS,)),
    )


def _others(folder: Path, prompts: Prompts, options: Options) -> list[Peer]:
    """Slower ones only in the whole bench."""
    others: list[Peer] = []
    if _is_asked(options, "transformers"):
        others.append(transformers := Ours(folder, options.dtype, "transformers"))
        transformers.start()
    if (PEERS / "BF16.gguf").is_file() and _is_asked(options, "llama"):
        others += [Llama("BF16", prompts), Llama("Q4_0", prompts)]
    if not options.quick and _is_asked(options, "batching"):
        others.append(ContinuousBatching(folder, prompts))
    if not options.quick and has_bfloat16() and _is_asked(options, "generate"):
        others.append(Plain(folder, "bfloat16", prompts))
    return others


def _is_asked(options: Options, engine: str) -> bool:
    return engine in (options.engines or ENGINES)


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16; elsewhere it is many times slower than float32."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported())


def work_of(workload: str, seed: int) -> Work:
    """ "8": so many answers of equal length; "32 mixed": of many lengths. No prompt of one seed is
    one of another, so that a prefix cache finds no more than what all prompts share."""
    count, _, mixed = workload.partition(" ")
    streams = int(count)
    lengths = (MIXED * streams)[:streams] if mixed else (NEW_TOKENS,) * streams
    return Work(texts(streams, 1000 + 100 * seed), lengths)


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


def race(peers: Sequence[Peer], options: Options) -> list[Round]:
    """A short batch of each goes first, uncounted."""
    for peer in peers:
        peer.answer(Work(texts(2), (8, 8)))
    workloads = options.streams or (QUICK_WORKLOADS if options.quick else WORKLOADS)
    seeds = itertools.count()
    rounds = []
    for _ in range(options.rounds):
        for workload in workloads:
            work = work_of(workload, next(seeds))
            rounds.append(Round(workload, {peer.name: peer.answer(work) for peer in peers}))
    return rounds


class Ours:
    """The local engine, each request read by a reader of its own."""

    def __init__(self, folder: Path, dtype: str, runner: "RunnerChoice") -> None:
        from servemu_engine.local import LocalEngine, LocalOptions

        self.name = f"ours {runner} {dtype}"
        options = LocalOptions(dtype=dtype, runner=runner, num_threads=num_cores())
        self._engine = LocalEngine(folder, MODEL, options)

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


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Its result and its seconds."""
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def _import_torch() -> None:
    import torch

    assert torch.__version__
