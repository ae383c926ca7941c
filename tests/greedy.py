"""Greedy answers from a runner and a scheduler, without the engine's thread."""

from collections.abc import Sequence

from servemu_engine.base import Sampling
from servemu_engine.loop import StepRunner
from servemu_engine.scheduler import Scheduler
from servemu_engine.sequence import Sequence as EngineSequence


def answers(
    runner: StepRunner, scheduler: Scheduler, prompts: Sequence[Sequence[int]], num_tokens: int
) -> list[list[int]]:
    """Prompt and `num_tokens` new ones of each; all prompts come at once."""
    greedy = Sampling(temperature=0)
    sequences = [EngineSequence(tuple(p), greedy, 0, run_ahead=10**9) for p in prompts]
    for sequence in sequences:
        scheduler.add(sequence)
    while scheduler.has_work:
        step = scheduler.schedule()
        sampled = runner.run(step)
        for row in step.rows:
            row.sequence.num_cached += row.count
        for row, token in sampled:
            row.sequence.tokens.append(token.token)
            if row.sequence.num_generated == num_tokens:
                scheduler.remove(row.sequence)
    return [sequence.tokens for sequence in sequences]
