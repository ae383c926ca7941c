"""The compiled step against transformers' forward, against itself in other company, and refused."""

import gc
import random
import weakref
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tests.greedy import answers
from tests.tiny_models import COMPILED, GROUPED, LLAMA3, tiny
from transformers import GPT2Config, LlamaConfig, PretrainedConfig, PreTrainedModel

from servemu_engine.base import Sampling
from servemu_engine.cache import Segment
from servemu_engine.compiled import CompiledRunner
from servemu_engine.compiled_packing import PackedModel
from servemu_engine.compiled_weights import CompiledWeights
from servemu_engine.compiling import NotCompiled
from servemu_engine.runner import Runner
from servemu_engine.runners import RunnerOptions, checked_runner
from servemu_engine.scheduler import Scheduler
from servemu_engine.sequence import Sequence as EngineSequence
from servemu_engine.slots import Capacity, Copy, Reshape

LENGTH = 90


def checked(model: PreTrainedModel, library: Path, num_threads: int = 2) -> CompiledRunner:
    runner = CompiledRunner.of(model, library, num_threads)
    runner.check()
    return runner


def generate(
    runner: CompiledRunner, prompts: Sequence[Sequence[int]], max_slots: int = 8
) -> list[list[int]]:
    """Greedy, 24 tokens each, prompts in chunks of 32, in few and short slots at first."""
    scheduler = Scheduler(Capacity(max_slots, 2000, 400, shortest=32), prefill_chunk=32)
    return answers(runner, scheduler, prompts, 24)


@pytest.mark.parametrize("family", COMPILED)
def test_logits_are_those_of_transformers(family: str, compiled_libraries: Path) -> None:
    model = tiny(COMPILED[family])
    ids = torch.randint(3, 300, (LENGTH,)).tolist()
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0]
        runner = checked(model, compiled_libraries)
        runner._reshape(Reshape(3, LENGTH, ()))
        got = [runner._forward(ids[:50], [Segment(0, 50, 2, 0)])]
        got += [runner._forward(ids[i : i + 1], [Segment(0, 1, 2, i)]) for i in range(50, LENGTH)]
    torch.testing.assert_close(torch.cat(got), expected[49:], rtol=1e-3, atol=2e-3)


def test_bfloat16_weights_are_as_near_to_float32_as_those_of_transformers(
    compiled_libraries: Path,
) -> None:
    ids = torch.randint(3, 300, (LENGTH,)).tolist()
    batch = torch.tensor([ids])
    config = COMPILED["llama"]
    with torch.inference_mode():
        exact = tiny(config, torch.bfloat16).float()(batch).logits[0, -1]
        rounded = tiny(config, torch.bfloat16)
        theirs = rounded(batch).logits[0, -1].float()
        runner = checked(rounded, compiled_libraries)
        runner._reshape(Reshape(1, LENGTH, ()))
        ours = runner._forward(ids, [Segment(0, LENGTH, 0, 0)])[0]
    assert (ours - exact).norm() <= 1e-4 * exact.norm() < (theirs - exact).norm()


@pytest.mark.parametrize(
    ("family", "dtype"),
    [*((family, torch.float32) for family in COMPILED), ("llama of odd sizes", torch.bfloat16)],
)
def test_logits_do_not_depend_on_the_batch_or_on_chunks(
    family: str, dtype: torch.dtype, compiled_libraries: Path
) -> None:
    runner = checked(tiny(COMPILED[family], dtype), compiled_libraries)
    ids = torch.randint(3, 300, (LENGTH,)).tolist()
    others = torch.randint(3, 300, (70,)).tolist()
    with torch.inference_mode():
        runner._reshape(Reshape(4, 128, ()))
        alone = [runner._forward(ids[i : i + 1], [Segment(0, 1, 0, i)]) for i in range(LENGTH)]
        runner._forward(ids[:41], [Segment(0, 41, 3, 0)])
        runner._forward(others[:33], [Segment(0, 33, 1, 0)])
        mixed = [Segment(0, 1, 1, 33), Segment(1, 49, 3, 41), Segment(49, 85, 2, 0)]
        second = runner._forward(others[33:34] + ids[41:89] + others[34:], mixed)
        last = runner._forward([others[0], ids[89]], [Segment(0, 1, 2, 36), Segment(1, 2, 3, 89)])
    assert torch.equal(second[1], alone[88][0])
    assert torch.equal(last[1], alone[89][0])


def test_greedy_text_is_the_same_alone_and_in_full_batches(compiled_libraries: Path) -> None:
    draw = random.Random(0)
    shared = [draw.randrange(3, 300) for _ in range(40)]
    lengths = (1, 7, 33, 64, 100, 150, 5, 90, 31, 2)
    prompts = [
        (shared if i % 3 == 0 else []) + [draw.randrange(3, 300) for _ in range(length)]
        for i, length in enumerate(lengths)
    ]
    model = tiny(COMPILED["llama"])
    runner = checked(model, compiled_libraries)
    alone = [generate(runner, [prompt], max_slots=1)[0] for prompt in prompts]
    assert generate(runner, prompts) == alone
    assert generate(runner, prompts[::-1], max_slots=3) == alone[::-1]


def test_number_of_threads_changes_nothing(compiled_libraries: Path) -> None:
    prompts = [[5, 6, 7], list(range(3, 90))]
    one, three = (checked(tiny(COMPILED["llama"]), compiled_libraries, count) for count in (1, 3))
    assert generate(one, prompts) == generate(three, prompts)


def test_copied_slot_goes_on_like_its_source(compiled_libraries: Path) -> None:
    runner = checked(tiny(COMPILED["llama of odd sizes"]), compiled_libraries)
    ids = torch.randint(3, 300, (60,)).tolist()
    with torch.inference_mode():
        runner._reshape(Reshape(2, 64, ()))
        runner._forward(ids[:50], [Segment(0, 50, 0, 0)])
        expected = runner._forward(ids[37:], [Segment(0, 23, 0, 37)])
        runner._cache.copy(Copy(0, 1, 37))
        copied = runner._forward(ids[37:], [Segment(0, 23, 1, 37)])
        runner._reshape(Reshape(3, 200, (-1, 1), (0, 41)))
        moved = runner._forward(ids[41:], [Segment(0, 19, 1, 41)])
    assert torch.equal(copied, expected)
    assert torch.equal(moved, expected)


def test_sequence_without_numbers_fails_alone(compiled_libraries: Path) -> None:
    model = tiny(COMPILED["llama"])
    runner = checked(model, compiled_libraries)
    model.get_input_embeddings().weight[299] = torch.nan
    expected = generate(runner, [[5, 6, 7]])[0]
    scheduler = Scheduler(Capacity(2, 400, 200, shortest=64), prefill_chunk=32)
    greedy = Sampling(temperature=0)
    good, bad = (EngineSequence(ids, greedy, 0) for ids in ((5, 6, 7), (5, 299, 7)))
    for sequence in (bad, good):
        scheduler.add(sequence)
    sampled = {row.sequence: token for row, token in runner.run(scheduler.schedule())}
    assert not sampled[bad].is_finite
    assert sampled[good].token == expected[3]


def test_bytes_of_a_token_are_those_of_its_keys_and_values(compiled_libraries: Path) -> None:
    padded = -(-16 // CompiledRunner.of(tiny(COMPILED["llama"]), compiled_libraries)._panel)
    runner = checked(tiny(COMPILED["llama"]), compiled_libraries)
    assert runner.num_bytes_per_token == 2 * 2 * (16 + padded * runner._panel) * 4


@pytest.mark.parametrize("name", ["qkv", "out", "gate_up", "down"])
def test_wrong_weight_is_refused_at_load(name: str, compiled_libraries: Path) -> None:
    runner = CompiledRunner.of(tiny(COMPILED["llama"]), compiled_libraries)
    packed = runner._weights.packed.tensors[f"1.{name}"]
    packed[0, 3] += 2.0
    with pytest.raises(NotCompiled, match="other logits than those of LlamaForCausalLM"):
        runner.check()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (GPT2Config(vocab_size=300, n_embd=64, n_layer=2, n_head=4), "GPT2LMHeadModel is not one"),
        (LlamaConfig(**GROUPED, hidden_act="gelu"), "activation 'gelu'"),
        (
            LlamaConfig(**GROUPED, rope_parameters={**LLAMA3, "rope_type": "dynamic"}),
            "rope type 'dynamic'",
        ),
    ],
)
def test_model_it_does_not_know_is_refused(
    config: PretrainedConfig, reason: str, compiled_libraries: Path
) -> None:
    with pytest.raises(NotCompiled, match=reason):
        CompiledRunner.of(tiny(config), compiled_libraries)


def test_without_a_compiler_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(NotCompiled, match="there is no C compiler"):
        CompiledRunner.of(tiny(COMPILED["llama"]), tmp_path)


def test_without_a_compiler_transformers_serve_and_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CC", str(tmp_path / "cc"))
    runner, name = checked_runner(tiny(COMPILED["llama"]), RunnerOptions("auto", tmp_path))
    assert (type(runner), name) == (Runner, "transformers")
    line, *_ = caplog.messages
    assert line.endswith(
        "runs without the compiled step: there is no C compiler ($CC, or cc in $PATH)"
    )
    with pytest.raises(NotCompiled):
        checked_runner(tiny(COMPILED["llama"]), RunnerOptions("compiled", tmp_path))


def test_wrong_step_is_not_served(
    compiled_libraries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(packed: PackedModel) -> CompiledWeights:
        weights = CompiledWeights(packed)
        weights.model.eps = 0.5
        return weights

    monkeypatch.setattr("servemu_engine.compiled.CompiledWeights", planted)
    model = tiny(COMPILED["llama"])
    expected = model(torch.tensor([[5, 6, 7]])).logits
    assert checked_runner(model, RunnerOptions("auto", compiled_libraries))[1] == "transformers"
    model.set_attn_implementation("sdpa")
    torch.testing.assert_close(model(torch.tensor([[5, 6, 7]])).logits, expected)


def test_checked_model_is_served_compiled_and_is_not_needed_any_more(
    compiled_libraries: Path,
) -> None:
    model = tiny(COMPILED["llama"])
    kept = weakref.ref(model.model.layers[0])
    runner, name = checked_runner(model, RunnerOptions("auto", compiled_libraries, num_threads=1))
    assert (type(runner), name) == (CompiledRunner, "compiled")
    del model
    gc.collect()
    assert kept() is None


def test_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'unknown option -march' >&2\nexit 1\n", encoding="utf-8")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(NotCompiled, match="unknown option -march"):
        CompiledRunner.of(tiny(COMPILED["llama"]), tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []
