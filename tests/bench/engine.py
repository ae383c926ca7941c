"""The local engine beside its peers on the same weights and cores: load, tokens/s, first token.

Interleaved round by round, so that all see the same machine. Each round goes to `--record FILE` as
it ends; a run with the same file does what is left, and its tables are of all that is in it.
"""

import os.path
import sys
import time
from collections.abc import Callable, Container, Sequence
from pathlib import Path

from tests.bench import loading, record
from tests.bench.engine_peers import (
    PEERS,
    ContinuousBatching,
    Llama,
    Peer,
    Plain,
    Prompts,
    Work,
    take_all_cores,
)
from tests.bench.engine_plan import Turn, left, turns
from tests.bench.engine_plot import plot
from tests.bench.engine_rounds import first_tokens, speed
from tests.bench.engine_work import text, work_of
from tests.bench.ours import Ours
from tests.bench.record import Round
from tests.bench.report import Options, Table
from tests.bench.roofline import Roofline

from servemu.settings import Settings
from servemu_engine.errors import LoadFailed
from servemu_engine.weights import ModelStore

MODEL = "smollm2-135m-instruct"
ANOTHER = "What is left of every prompt beside this one is the template."
NO_PEERS = "llama.cpp is not installed: `make peers`."
NO_BFLOAT16 = (
    "generate in bfloat16 was not run: without instructions for it, it is about 6 times slower "
    "than in float32 on this CPU."
)


def run(options: Options) -> list[Table]:
    """Load times, then what is left of the race."""
    folder = ModelStore(Settings().model_store.expanduser()).ensure(MODEL)
    if not record.read(options.record).loadings:
        record.append(options.record, loading.measure(folder))
    todo = left(turns(options), record.read(options.record).rounds)
    notes = list(race(folder, todo, options)) if todo else []
    measured = record.read(options.record)
    if options.plot is not None:
        plot(measured.rounds, options.plot)
    return [
        loading.table(measured.loadings),
        speed(measured.rounds, tuple(notes)),
        first_tokens(measured.rounds),
    ]


def race(folder: Path, todo: Sequence[Turn], options: Options) -> list[str]:
    """Record one round after the other; why whom could not run. A short batch of each goes first,
    uncounted; every other round goes backwards."""
    take_all_cores()
    began = time.monotonic()
    engines = {engine for turn in todo for engine in turn.engines}
    prompts = Prompts(folder)
    peers, notes = _peers(prompts, engines, options)
    try:
        for peer in (peer for of_engine in peers.values() for peer in of_engine):
            peer.answer(Work((text(0, 40), text(1, 40)), (8, 8)))
        for number, turn in enumerate(todo):
            _say(
                f"{time.monotonic() - began:.0f} s: round {turn.number + 1}, {turn.workload}; "
                f"{len(todo) - number} rounds left, about {_minutes(todo[number:], peers)} min"
            )
            racing = [peer for engine in turn.engines for peer in peers.get(engine, [])]
            ran = _round(prompts, turn, racing)
            record.append(options.record, [ran])
            _say(", ".join(f"{peer} {one.seconds:.1f} s" for peer, one in ran.by_peer.items()))
    finally:
        for peer in (peer for of_engine in peers.values() for peer in of_engine):
            peer.close()
    return notes


def _round(prompts: Prompts, turn: Turn, racing: Sequence[Peer]) -> Round:
    work = work_of(turn.workload, turn.number)
    ids = prompts.ids((*work.texts, ANOTHER))
    roofline = Roofline.measure(prompts.folder)
    order = racing[::-1] if turn.number % 2 else racing
    by_peer = {peer.name: peer.answer(work) for peer in order}
    return Round(
        turn.workload,
        turn.number,
        turn.engines,
        tuple(map(len, ids[:-1])),
        len(os.path.commonprefix(ids)),
        roofline,
        {peer.name: by_peer[peer.name] for peer in racing},
    )


def _peers(
    prompts: Prompts, engines: set[str], options: Options
) -> tuple[dict[str, list[Peer]], list[str]]:
    """By the names of the command line, and why some are not there."""
    folder = prompts.folder
    makers: dict[str, Callable[[], list[Peer]]] = {
        "compiled": lambda: [Ours(folder, options.dtype, "compiled")],
        "int16": lambda: [Ours(folder, "int16", "compiled")],
        "transformers": lambda: [Ours(folder, options.dtype, "transformers")],
        "transformers-int16": lambda: [Ours(folder, "int16", "transformers")],
        "llama": lambda: [Llama("BF16", prompts), Llama("Q4_0", prompts)],
        "generate": lambda: [Plain(folder, "float32", prompts)],
        "generate-bf16": lambda: [Plain(folder, "bfloat16", prompts)],
        "batching": lambda: [ContinuousBatching(folder, prompts)],
    }
    reasons = {
        **({} if (PEERS / "BF16.gguf").is_file() else {"llama": NO_PEERS}),
        **({} if has_bfloat16() else {"generate-bf16": NO_BFLOAT16}),
    }
    peers: dict[str, list[Peer]] = {}
    for engine, make in makers.items():
        if engine not in engines or engine in reasons:
            continue
        try:
            peers[engine] = make()
        except LoadFailed as reason:
            reasons[engine] = f"{engine} was not run: {reason}."
    return peers, [reason for engine, reason in reasons.items() if engine in engines]


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16; elsewhere it is many times slower than float32."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported())


def _minutes(todo: Sequence[Turn], racing: Container[str]) -> int:
    return round(sum(turn.seconds(racing) for turn in todo) / 60)


def _say(line: str) -> None:
    """Progress; the report alone goes to stdout."""
    sys.stderr.write(f"engine: {line}\n")
