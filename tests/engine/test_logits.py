"""The numbers of a step, read through the runner, beside those of transformers' own forward."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tests.tiny_models import FAMILIES, tiny
from transformers import PretrainedConfig

from servemu_engine.base import Sampling
from servemu_engine.runners import RunnerChoice, RunnerOptions, checked_runner
from servemu_engine.scheduler import Scheduler
from servemu_engine.sequence import Sequence as EngineSequence
from servemu_engine.slots import Capacity

VOCAB = 300
COMPILED = (
    "llama",
    "mistral with sliding window",
    "qwen2 with biases",
    "qwen3 with normed queries",
)
EAGER = (
    *COMPILED,
    "gemma",
    "gemma2 with capped scores",
    "gemma3",
    "gpt2 with learned positions",
)
FLOAT32, BFLOAT16 = 1e-4, 0.03
"""Most that log-probabilities may be off, relative to their spread."""
ALL = Sampling(temperature=0, logprobs=True, top_logprobs=VOCAB)
NUM_TOKENS = 8


class Device:
    """A runner under a scheduler of its own: four slots, prompts in pieces of 16 tokens."""

    def __init__(
        self, config: PretrainedConfig, dtype: torch.dtype, runner: RunnerChoice, libraries: Path
    ) -> None:
        options = RunnerOptions(runner, libraries)
        self._runner, _ = checked_runner(tiny(config, dtype), options)
        self._scheduler = Scheduler(Capacity(4, 800, 200, shortest=100), prefill_chunk=16)
        self.starts: list[int] = []
        """Of the first row of each prompt."""

    def answer(self, *prompts: Sequence[int]) -> list[tuple[list[int], torch.Tensor]]:
        """All tokens of each, and the log-probabilities [new tokens, vocab] of the new ones."""
        asked = [EngineSequence(tuple(ids), ALL, seed=0, run_ahead=10**9) for ids in prompts]
        drawn: dict[EngineSequence, list[torch.Tensor]] = {sequence: [] for sequence in asked}
        begun: set[EngineSequence] = set()
        for sequence in asked:
            self._scheduler.add(sequence)
        while self._scheduler.has_work:
            step = self._scheduler.schedule()
            self.starts += [row.start for row in step.rows if row.sequence not in begun]
            begun.update(row.sequence for row in step.rows)
            sampled = self._runner.run(step)
            for row in step.rows:
                row.sequence.num_cached += row.count
            for row, token in sampled:
                assert token.scores is not None
                by_id = dict(token.scores.top)
                drawn[row.sequence].append(torch.tensor([by_id[id] for id in range(VOCAB)]))
                row.sequence.tokens.append(token.token)
                if row.sequence.num_generated == NUM_TOKENS:
                    self._scheduler.remove(row.sequence)
        return [(sequence.tokens, torch.stack(drawn[sequence])) for sequence in asked]


def prompts_of(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, VOCAB, (n,), generator=generator).tolist() for n in lengths]


def off_by(got: torch.Tensor, wanted: torch.Tensor) -> float:
    spread = (wanted - wanted.mean(-1, keepdim=True)).norm()
    return float((got - wanted).norm() / spread)


CASES = [
    *((family, torch.float32, "transformers", FLOAT32) for family in EAGER),
    *((family, torch.bfloat16, "transformers", BFLOAT16) for family in EAGER),
    *((family, torch.float32, "compiled", FLOAT32) for family in COMPILED),
    ("llama", torch.bfloat16, "compiled", BFLOAT16),
]


@pytest.mark.parametrize(("family", "dtype", "runner", "tolerance"), CASES)
def test_logits_are_those_of_transformers(
    family: str,
    dtype: torch.dtype,
    runner: RunnerChoice,
    tolerance: float,
    compiled_libraries: Path,
) -> None:
    model = tiny(FAMILIES[family], dtype)
    device = Device(FAMILIES[family], dtype, runner, compiled_libraries)
    for tokens, got in device.answer(*prompts_of(5, 40, 1, 33)):
        with torch.inference_mode():
            logits = model(torch.tensor([tokens])).logits[0, -NUM_TOKENS - 1 : -1].float()
        assert off_by(got, logits.log_softmax(-1)) < tolerance


@pytest.mark.parametrize("runner", ["transformers", "compiled"])
def test_logits_are_the_same_where_the_prompt_begins_in_the_cache(
    runner: RunnerChoice, compiled_libraries: Path
) -> None:
    system, one, other = prompts_of(30, 9, 12)
    fresh = Device(FAMILIES["llama"], torch.float32, runner, compiled_libraries)
    (expected,) = fresh.answer([*system, *other])
    device = Device(FAMILIES["llama"], torch.float32, runner, compiled_libraries)
    device.answer([*system, *one])
    (got,) = device.answer([*system, *other])
    assert (fresh.starts, device.starts) == ([0], [0, 30])
    assert got[0] == expected[0]
    torch.testing.assert_close(got[1], expected[1], rtol=1e-5, atol=1e-5)
