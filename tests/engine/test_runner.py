"""One flat forward over the slot cache, for the attention variants of the usual model families."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tests.greedy import answers
from tests.tiny_models import FAMILIES, tiny
from transformers import BloomConfig
from transformers.pytorch_utils import Conv1D

from servemu_engine.errors import LoadFailed
from servemu_engine.packed import Pack, PackedLinear, has_integers, pack_linears, packing
from servemu_engine.runner import Runner
from servemu_engine.scheduler import Scheduler
from servemu_engine.slots import Capacity

GENERATED = (
    "llama",
    "qwen2 with biases",
    "qwen2 with half of the layers sliding",
    "qwen3 with normed queries",
    "mistral with sliding window",
    "gemma2 with capped scores",
    "phi3 with fused projections",
    "gpt-neox with partial rotation",
    "gpt2 with learned positions",
)


def generate(runner: Runner, prompts: Sequence[Sequence[int]], num_tokens: int) -> list[list[int]]:
    """Greedy, three slots, prompts in chunks of 32."""
    scheduler = Scheduler(Capacity(3, 600, 200, shortest=64), prefill_chunk=32)
    return answers(runner, scheduler, prompts, num_tokens)


@pytest.mark.parametrize("family", GENERATED)
def test_mixed_batch_gives_what_generate_gives(family: str) -> None:
    model = tiny(FAMILIES[family])
    prompts = [torch.randint(3, 300, (length,)).tolist() for length in (5, 1, 40, 17)]
    expected = [
        model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=24,
            do_sample=False,
            pad_token_id=0,
        )[0].tolist()
        for prompt in prompts
    ]
    runner = Runner(model)
    runner.check()
    assert generate(runner, prompts, 24) == expected


def test_architecture_whose_attention_needs_more_is_refused_at_load() -> None:
    runner = Runner(tiny(BloomConfig(vocab_size=300, hidden_size=64, n_layer=2, n_head=4)))
    with pytest.raises(LoadFailed, match="BloomForCausalLM"):
        runner.check()


def test_weights_that_give_no_numbers_are_refused_at_load() -> None:
    model = tiny(FAMILIES["llama"])
    model.get_parameter("model.norm.weight").fill_(torch.nan)
    with pytest.raises(LoadFailed, match="LlamaForCausalLM"):
        Runner(model).check()


def test_bytes_of_a_token_are_those_of_its_keys_and_values() -> None:
    runner = Runner(tiny(FAMILIES["llama"]))
    runner.check()
    assert runner.num_bytes_per_token == 2 * 2 * 2 * 16 * 4


@pytest.fixture(params=["compiled", "oneDNN"])
def pack(request: pytest.FixtureRequest, compiled_libraries: Path) -> Pack:
    if request.param == "compiled":
        return packing(compiled_libraries)
    return PackedLinear


@pytest.mark.parametrize(
    "family",
    ["llama", "qwen2 with biases", "phi3 with fused projections", "gpt2 with learned positions"],
)
def test_packed_layers_give_the_same_logits(family: str, pack: Pack) -> None:
    model = tiny(FAMILIES[family])
    linears = [layer for layer in model.modules() if type(layer) in (torch.nn.Linear, Conv1D)]
    ids = torch.tensor([[5, 280, 7]])
    expected = model(ids).logits
    assert pack_linears(model, pack) == len(linears)
    torch.testing.assert_close(model(ids).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_rows", [1, 2, 3, 7, 16, 33, 100])
def test_packed_layer_rounds_a_row_alike_in_any_batch(num_rows: int, pack: Pack) -> None:
    torch.manual_seed(0)
    layer = pack(torch.randn(192, 96), None)
    rows = torch.randn(1, 300, 96)
    assert torch.equal(layer(rows[:, :num_rows]), layer(rows)[:, :num_rows])


def test_outputs_that_fill_no_panel_are_all_there(pack: Pack) -> None:
    torch.manual_seed(0)
    weight, bias, rows = torch.randn(13, 37), torch.randn(13), torch.randn(2, 5, 37)
    torch.testing.assert_close(pack(weight, bias)(rows), rows @ weight.T + bias)


@pytest.mark.parametrize(
    "family", ["llama", "gemma2 with capped scores", "gpt2 with learned positions"]
)
def test_layers_of_int16_give_about_the_same_logits(family: str, compiled_libraries: Path) -> None:
    model = tiny(FAMILIES[family])
    ids = torch.tensor([[5, 280, 7]])
    expected = model(ids).logits
    assert not has_integers(model)
    assert pack_linears(model, packing(compiled_libraries, "int16"))
    assert has_integers(model)
    assert (model(ids).logits - expected).norm() < 5e-3 * (expected - expected.mean()).norm()


def test_without_a_compiler_linear_layers_are_those_of_onednn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert packing(tmp_path) is PackedLinear


def test_layer_that_answers_something_else_is_not_replaced() -> None:
    model = tiny(FAMILIES["llama"])
    assert pack_linears(model, lambda weight, bias: PackedLinear(2 * weight, bias)) == 0


def test_fused_layers_answer_for_the_rows_they_are_given(pack: Pack) -> None:
    model = tiny(FAMILIES["llama"])
    attention = model.model.layers[0].self_attn
    one, other = torch.randn(2, 1, 3, 64)
    expected = [attention.q_proj(one), attention.k_proj(other), attention.v_proj(one)]
    pack_linears(model, pack)
    got = [attention.q_proj(one), attention.k_proj(other), attention.v_proj(one)]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
