"""The compiled step with weights and activations as integers of 16 bits: near, exact, alone."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.tiny_models import COMPILED, ODD, tiny
from torch import Tensor
from transformers import LlamaConfig, PretrainedConfig

from servemu_engine.base import Sampling
from servemu_engine.compiled import CompiledRunner
from servemu_engine.compiled_packing import PRECISIONS, _integers
from servemu_engine.compiled_weights import Linear
from servemu_engine.compiling import compiled_library
from servemu_engine.local import LocalEngine, LocalOptions
from servemu_engine.scheduler import Scheduler
from servemu_engine.sequence import Sequence
from servemu_engine.slots import Capacity, Copy, Reshape
from servemu_engine.step_rows import Segment

FAMILIES: dict[str, PretrainedConfig] = {
    "llama of odd sizes": LlamaConfig(**{**ODD, "hidden_size": 300}),
    **{
        name: COMPILED[name]
        for name in (
            "llama with biases",
            "mistral with sliding window",
            "qwen2 with biases",
            "qwen3 with normed queries",
        )
    },
}
LENGTH = 90
WORST = 2 * 12 / 32755 + 1e-5
"""Of |x| |w|: 576 rounded numbers are off by at most 12 together, where the norm of all is 32755;
both sides are rounded, and then float32 adds up."""


@pytest.fixture
def multiply(compiled_libraries: Path) -> Callable[[Tensor, Tensor], Tensor]:
    """[rows, depth] and [width, depth] to [rows, width]."""
    library = compiled_library(compiled_libraries)
    panel = int(library.panel_width())

    def product(x: Tensor, weight: Tensor) -> Tensor:
        width, depth = weight.shape
        packed = _integers(weight, panel)
        layer = Linear(packed.data_ptr(), None, depth, width)
        out = torch.empty(len(x), width)
        blocks = torch.empty(len(x) * library.row_bytes(ctypes.c_int64(depth)), dtype=torch.uint8)
        library.run_linear(
            ctypes.byref(layer),
            ctypes.c_int64(PRECISIONS.index("int16")),
            ctypes.c_void_p(x.data_ptr()),
            ctypes.c_int64(len(x)),
            ctypes.c_void_p(out.data_ptr()),
            ctypes.c_int64(2),
            ctypes.c_void_p(blocks.data_ptr()),
        )
        return out

    return product


def outlier(shape: tuple[int, int]) -> Tensor:
    rows = torch.randn(shape) * 1e-3
    rows[:, ::200] = 1e4
    return rows


NUMBERS: dict[str, Callable[[tuple[int, int]], Tensor]] = {
    "random": torch.randn,
    "all the same": lambda shape: torch.full(shape, 7.0),
    "all the same but for the sign": lambda shape: torch.randn(shape).sign() * 1e15,
    "one large": outlier,
    "zero": torch.zeros,
    "tiny": lambda shape: torch.randn(shape) * 1e-15,
    "large": lambda shape: torch.randn(shape) * 1e15,
}


@pytest.mark.parametrize("depth", [1, 255, 576, 577])
@pytest.mark.parametrize("numbers", NUMBERS)
def test_sums_are_as_near_as_rounding_allows_and_never_overflow(
    numbers: str, depth: int, multiply: Callable[[Tensor, Tensor], Tensor]
) -> None:
    torch.manual_seed(0)
    x, weight = NUMBERS[numbers]((7, depth)), NUMBERS[numbers]((64, depth))
    weight[0] = x[0]  # in line with each other: the largest sum there can be
    exact = x.double() @ weight.double().T
    largest = x.double().norm(dim=-1).unsqueeze(1) * weight.double().norm(dim=-1)
    assert ((multiply(x, weight) - exact).abs() <= WORST * largest).all()


def test_denormal_numbers_count_as_zero(multiply: Callable[[Tensor, Tensor], Tensor]) -> None:
    x, weight = torch.full((3, 300), 1e-40), torch.randn(64, 300)
    assert multiply(x, weight).abs().max() < 1e-35
    assert multiply(weight[:3].contiguous(), torch.full((64, 300), 1e-40)).abs().max() < 1e-35


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_row_without_numbers_stays_without_and_alone(
    number: float, multiply: Callable[[Tensor, Tensor], Tensor]
) -> None:
    x, weight = torch.randn(9, 576), torch.randn(64, 576)
    expected = multiply(x, weight)
    x[4, 300] = number
    got = multiply(x, weight)
    others = [row for row in range(9) if row != 4]
    assert not got[4].isfinite().any()
    assert torch.equal(got[others], expected[others])


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_near_those_of_transformers_and_the_same_in_any_company(
    family: str, compiled_libraries: Path
) -> None:
    model = tiny(FAMILIES[family])
    ids = torch.randint(3, 300, (LENGTH,)).tolist()
    others = torch.randint(3, 300, (40,)).tolist()
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0]
        runner = CompiledRunner.of(model, compiled_libraries, 2, "int16")
        runner.check()
        runner._reshape(Reshape(4, 128, ()))
        alone = torch.cat(
            [runner._forward(ids[i : i + 1], [Segment(0, 1, 0, i)]) for i in range(LENGTH)]
        )
        mixed = [Segment(0, 40, 1, 0), Segment(40, 81, 3, 0)]
        runner._forward(others + ids[:41], mixed)
        [_, chunked] = runner._forward(
            others[:1] + ids[41:], [Segment(0, 1, 1, 40), Segment(1, 50, 3, 41)]
        )
        runner._cache.copy(Copy(3, 2, 70))
        [copied] = runner._forward(ids[70:], [Segment(0, 20, 2, 70)])
    spread = (expected - expected.mean(-1, keepdim=True)).norm(dim=-1)
    assert ((alone - expected).norm(dim=-1) <= 0.01 * spread).all()
    assert torch.equal(chunked, alone[-1])
    assert torch.equal(copied, alone[-1])


def test_sequence_without_numbers_fails_alone(compiled_libraries: Path) -> None:
    model = tiny(FAMILIES["qwen2 with biases"])
    runner = CompiledRunner.of(model, compiled_libraries, 2, "int16")
    model.get_input_embeddings().weight[299] = torch.nan
    scheduler = Scheduler(Capacity(2, 400, 200, shortest=64), prefill_chunk=32)
    good, bad = (Sequence(ids, Sampling(temperature=0), 0) for ids in ((5, 6, 7), (5, 299, 7)))
    for sequence in (bad, good):
        scheduler.add(sequence)
    sampled = {row.sequence: token for row, token in runner.run(scheduler.schedule())}
    assert (sampled[good].is_finite, sampled[bad].is_finite) == (True, False)


@pytest.mark.parametrize(
    ("compiler", "ran"), [("cc", ("compiled", "int16")), ("nocc", ("transformers", "float32"))]
)
def test_engine_tells_which_precision_it_got(
    compiler: str,
    ran: tuple[str, str],
    byte_llama: Callable[..., Path],
    compiled_libraries: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CC", compiler)
    options = LocalOptions(dtype="int16", device="cpu", compiled=compiled_libraries)
    engine = LocalEngine(byte_llama("integers"), "integers", options)
    estimate = engine.info.num_bytes
    engine.start()
    info = engine.info
    engine.close()
    assert (info.runner, info.dtype) == ran
    assert 0 < info.num_bytes <= estimate
