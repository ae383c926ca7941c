"""What was measured, a line of JSON each, in a file that a later run adds to and reads whole."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter
from tests.bench.engine_peers import Measured
from tests.bench.roofline import Roofline


@dataclass(frozen=True, slots=True)
class Round:
    """One workload, answered by one engine after the other."""

    workload: str
    number: int
    engines: tuple[str, ...]
    """That were asked for, by their names on the command line."""
    prompt_tokens: tuple[int, ...]
    shared_tokens: int
    """Those of them that begin every prompt: a prefix cache has them."""
    roofline: Roofline
    """Of that moment: machines drift."""
    by_peer: dict[str, Measured]
    kind: Literal["round"] = "round"


@dataclass(frozen=True, slots=True)
class Loading:
    """Seconds from nothing to an engine that answers, in a process of its own."""

    torch: float
    """Its import."""
    engine: float
    """Import of the engine, and of transformers where that is part of it."""
    start: float
    """The first in its process: load, check, and what is imported late."""
    again: float
    """The second: load and check."""
    plain: float
    """`from_pretrained` of the same folder, after all of that."""
    packing: float | None = None
    """A start where nothing is packed yet: by way of transformers, and the file written."""
    kind: Literal["loading"] = "loading"

    @property
    def total(self) -> float:
        """Imports and load."""
        return self.torch + self.engine + self.start


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Medians of interleaved batches of one size."""

    batch: int
    ours: float
    """Sentences/s."""
    theirs: float | None
    ratio: float | None
    """Median of those of the pairs."""
    cosine: float | None
    """The least."""
    precision: str = "float32"
    """Of our weights."""
    kind: Literal["embeddings"] = "embeddings"


Line = Round | Loading | Embeddings
_LINE: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="kind")])


@dataclass(frozen=True, slots=True)
class Record:
    """All that one file has."""

    rounds: list[Round]
    loadings: list[Loading]
    embeddings: list[Embeddings]


def append(file: Path, lines: Iterable[Line]) -> None:
    """Each is on disk when this returns."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as opened:
        for line in lines:
            opened.write(_LINE.dump_json(_short(line)) + b"\n")


def read(file: Path) -> Record:
    """An absent file is an empty record."""
    content = file.read_bytes() if file.is_file() else b""
    lines = [_LINE.validate_json(line) for line in content.splitlines()]
    return Record(
        [line for line in lines if isinstance(line, Round)],
        [line for line in lines if isinstance(line, Loading)],
        [line for line in lines if isinstance(line, Embeddings)],
    )


def _short(line: Line) -> Line:
    """Times to a tenth of a millisecond: the file is kept beside the code."""
    if not isinstance(line, Round):
        return line
    by_peer = {
        peer: replace(one, seconds=round(one.seconds, 4), firsts=_rounded(one.firsts))
        for peer, one in line.by_peer.items()
    }
    return replace(line, by_peer=by_peer)


def _rounded(seconds: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(one, 4) for one in seconds)
