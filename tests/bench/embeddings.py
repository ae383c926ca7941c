"""The local embedder beside sentence-transformers, same weights and cores: sentences/s.

Batch by batch in turn, so that both see the same machine; tokenising is part of it on both sides.
"""

import asyncio
import itertools
import json
import math
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from tests.bench import record
from tests.bench.engine_peers import PEERS
from tests.bench.engine_work import WORDS
from tests.bench.record import Embeddings
from tests.bench.report import Cell, Options, Table, middle, significant

from servemu.settings import Settings
from servemu_engine.base import EmbedRequest
from servemu_engine.weights import ModelStore

if TYPE_CHECKING:
    from servemu_engine.embeddings import LocalEmbedder

MODEL = "all-minilm-l6-v2"
BATCHES = {1: 16, 8: 6, 32: 3}
"""Sentences of a batch, and how many batches make a round."""
SENTENCE_PEER = Path(__file__).with_name("sentence_peer.py")
NO_PEER = "sentence-transformers is not installed: `make peers`."
Vectors = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Embedded:
    """One batch."""

    seconds: float
    vectors: Vectors


@dataclass(slots=True)
class Pairs:
    """Batches of one size, ours and theirs."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    cosine: float = 1.0
    """The least of all."""


def run(options: Options) -> list[Table]:
    """Sentences/s of both, and the ratio of each pair of batches; ours with integers as well."""
    folder = ModelStore(Settings().model_store.expanduser()).ensure(MODEL)
    peer = SentenceTransformers(folder) if _has_peer() else None
    lines: list[Embeddings] = []
    try:
        for dtype in dict.fromkeys((options.dtype, "int16")):
            lines += _measured(_embedder(folder, dtype), peer, options.rounds)
    finally:
        if peer is not None:
            peer.close()
    record.append(options.record, lines)
    return [speed(lines, has_peer=peer is not None)]


def _measured(
    ours: "LocalEmbedder", peer: "SentenceTransformers | None", rounds: int
) -> list[Embeddings]:
    ours.start()
    try:
        measured = asyncio.run(race(ours, peer, rounds))
        precision = ours.info.dtype
    finally:
        ours.close()
    return [replace(line(size, pairs), precision=precision) for size, pairs in measured.items()]


async def race(
    ours: "LocalEmbedder", peer: "SentenceTransformers | None", rounds: int
) -> dict[int, Pairs]:
    """By sentences a batch; one batch of each size goes first, uncounted."""
    measured = {size: Pairs() for size in BATCHES}
    begins = itertools.count()
    for number in range(rounds + 1):
        for size, count in BATCHES.items():
            for _ in range(count if number else 1):
                texts = sentences(next(begins), size)
                mine = await embed(ours, texts)
                its = peer.embed(texts) if peer else None
                if number:
                    _note(measured[size], mine, its)
    return measured


def _note(pairs: Pairs, ours: Embedded, theirs: Embedded | None) -> None:
    pairs.ours.append(ours.seconds)
    if theirs is not None:
        pairs.theirs.append(theirs.seconds)
        both = zip(ours.vectors, theirs.vectors, strict=True)
        pairs.cosine = min(pairs.cosine, *(cosine(a, b) for a, b in both))


def sentences(begin: int, count: int) -> list[str]:
    """Of 10 to 36 tokens, 24 in the middle; none comes twice."""
    return [
        f"{WORDS[number % len(WORDS)]} {number}: "
        + " ".join(WORDS[(number * 5 + place * 7) % len(WORDS)] for place in range(length))
        for number in range(begin * count, (begin + 1) * count)
        for length in [5 + number * 11 % 27]
    ]


async def embed(embedder: "LocalEmbedder", texts: Sequence[str]) -> Embedded:
    """One request."""
    began = time.perf_counter()
    request = EmbedRequest(tuple(texts), normalize=True)
    vectors = await embedder.embed(embedder.prepare_embed(request))
    return Embedded(time.perf_counter() - began, vectors)


class SentenceTransformers:
    """In a process of its own: its own torch, its own threads."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [PEERS / "bin" / "python", SENTENCE_PEER, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def embed(self, texts: Sequence[str]) -> Embedded:
        """One `encode`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"texts": texts}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Embedded(answer["seconds"], answer["vectors"])

    def close(self) -> None:
        self._process.communicate()


def line(size: int, pairs: Pairs) -> Embeddings:
    """Medians; the ratio is that of each pair."""
    ours = middle([size / seconds for seconds in pairs.ours])
    if not pairs.theirs:
        return Embeddings(size, ours, None, None, None)
    theirs = middle([size / seconds for seconds in pairs.theirs])
    ratio = median(b / a for a, b in zip(pairs.ours, pairs.theirs, strict=True))
    return Embeddings(size, ours, theirs, significant(ratio), round(pairs.cosine, 6))


def speed(lines: Sequence[Embeddings], *, has_peer: bool) -> Table:
    """A row for each batch."""
    rows: list[tuple[Cell, ...]] = [
        (one.batch, one.precision, one.ours, one.theirs, one.ratio, one.cosine) for one in lines
    ]
    columns = (
        "batch",
        "precision",
        "ours, sentences/s",
        "sentence-transformers",
        "ours ÷ it",
        "least cosine",
    )
    notes = (
        "Sentences of 10 to 36 tokens, tokenising included, no HTTP; medians of interleaved"
        " batches.",
        *(() if has_peer else (NO_PEER,)),
    )
    return Table("Embeddings beside sentence-transformers", columns, rows, notes)


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """Of two vectors."""
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / (math.hypot(*a) * math.hypot(*b))


def _has_peer() -> bool:
    return any(PEERS.glob("lib/python*/site-packages/sentence_transformers"))


def _embedder(folder: Path, dtype: str) -> "LocalEmbedder":
    from servemu_engine.embeddings import EmbedderOptions, LocalEmbedder

    return LocalEmbedder(folder, MODEL, EmbedderOptions(dtype))
