"""Who races when: rounds of every workload, of which a slow engine runs only the first few."""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from tests.bench.engine_work import QUICK_WORKLOADS, WORKLOADS
from tests.bench.record import Round
from tests.bench.report import Options

ROUNDS: dict[str, dict[str, int]] = {
    "generate": {"1": 1, "4": 1, "8": 2, "16": 1, "32": 2, "32 mixed": 1},
    "generate-bf16": {"1": 1, "4": 1, "8": 2, "16": 1, "32": 2, "32 mixed": 1},
    "batching": {"1": 1, "8": 1, "32": 1},
}
"""Rounds of the slow ones, and where they run at all; everybody else runs in every round."""

SECONDS = {
    "compiled": (2, 3, 5, 6, 11, 17),
    "int16": (2, 3, 3, 5, 8, 12),
    "transformers": (3, 5, 7, 11, 17, 25),
    "transformers-int16": (3, 4, 6, 8, 13, 20),
    "llama": (3, 6, 10, 18, 34, 66),
    "generate": (6, 9, 14, 25, 50, 120),
    "generate-bf16": (6, 9, 14, 25, 50, 120),
    "batching": (7, 12, 17, 40, 100, 300),
}
"""Of one round of each of `WORKLOADS` on two cores (AVX2), roughly: for the estimate only."""

ENGINES = tuple(SECONDS)


@dataclass(frozen=True, slots=True)
class Turn:
    """One round of one workload, and who takes part in it."""

    number: int
    workload: str
    engines: tuple[str, ...]

    def seconds(self, racing: Container[str]) -> int:
        """As estimated, of those engines that can run here."""
        place = WORKLOADS.index(self.workload)
        return sum(SECONDS[engine][place] for engine in self.engines if engine in racing)


def turns(options: Options) -> list[Turn]:
    """Round by round, so that a run that is cut has seen every workload equally often."""
    engines = options.engines or (
        tuple(engine for engine in ENGINES if engine not in ROUNDS or engine == "generate")
        if options.quick
        else ENGINES
    )
    return [
        Turn(number, workload, tuple(e for e in engines if number < _rounds(e, workload, options)))
        for number in range(options.rounds)
        for workload in options.streams or (QUICK_WORKLOADS if options.quick else WORKLOADS)
    ]


def _rounds(engine: str, workload: str, options: Options) -> int:
    """All of them where it was asked for by name."""
    if engine in options.engines:
        return options.rounds
    return ROUNDS[engine].get(workload, 0) if engine in ROUNDS else options.rounds


def left(planned: Sequence[Turn], rounds: Iterable[Round]) -> list[Turn]:
    """Those that no recorded round covers."""
    have = [(one.number, one.workload, set(one.engines)) for one in rounds]
    return [
        turn
        for turn in planned
        if not any(
            (turn.number, turn.workload) == (number, workload) and set(turn.engines) <= engines
            for number, workload, engines in have
        )
    ]
