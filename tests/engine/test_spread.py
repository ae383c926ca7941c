"""A model whose layers are on several devices, and prompts by the kernels of a GPU, run on the CPU.

accelerate's hooks, which move what a layer is given, run here too when all devices are the CPU.
"""

import pytest
import torch
from accelerate import dispatch_model
from tests.tiny_models import FAMILIES, tiny

from servemu_engine.attention import slot_attention
from servemu_engine.base import Sampling
from servemu_engine.cache import Segment, layout_of
from servemu_engine.runner import Runner
from servemu_engine.scheduler import Row, Step
from servemu_engine.sequence import Sequence
from servemu_engine.slots import Reshape

CPU = torch.device("cpu")


def first_tokens(runner: Runner) -> list[int]:
    """Of two prompts in one step."""
    greedy = Sampling(temperature=0)
    asked = [Sequence(ids, greedy, 0) for ids in ((5, 280, 7), (9, 4))]
    for slot, sequence in enumerate(asked):
        sequence.slot = slot
    rows = tuple(Row(sequence, 0, len(sequence.tokens)) for sequence in asked)
    return [token.token for _, token in runner.run(Step((), rows, Reshape(2, 64, ())))]


def test_model_under_the_hooks_of_accelerate_gives_the_same_tokens() -> None:
    alone = Runner(tiny(FAMILIES["llama"]))
    alone.check()
    model = tiny(FAMILIES["llama"])
    names = ("model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm")
    places = dict.fromkeys((*names, "model.rotary_emb", "lm_head"), "cpu")
    spread = Runner(dispatch_model(model, places, main_device="cpu", force_hooks=True))
    spread.check()
    assert all(hasattr(layer, "_hf_hook") for layer in model.model.layers)
    assert first_tokens(spread) == first_tokens(alone)


def test_layout_is_moved_to_each_device_once() -> None:
    segments = (Segment(0, 1, 0, 9), Segment(1, 2, 2, 4), Segment(2, 5, 3, 0))
    layout = layout_of(segments, 2, CPU)
    meta = torch.device("meta")
    moved = layout.on(meta)
    assert (layout.on(CPU), layout.on(meta)) == (layout, moved)
    assert {moved.device, moved.positions.device, moved.groups[0].positions.device} == {meta}
    assert moved.decode_mask(0, torch.float32, None).shape == (2, 1, 1, 10)  # type: ignore[union-attr]
    assert moved.prefill_mask(2, torch.float32, None).device == meta
    assert layout.prefill_mask(2, torch.float32, None).device == CPU


def test_layers_are_counted_by_the_device_of_their_keys() -> None:
    runner = Runner(tiny(FAMILIES["llama"]))
    runner.check()
    assert runner.kv_layers == {"cpu": 2}


def test_largest_step_needs_room_for_its_activations_and_logits() -> None:
    runner = Runner(tiny(FAMILIES["llama"]))
    assert runner.step_bytes(100, 8) == 100 * (8 * 64 + 3 * 128) * 4 + 8 * 300 * 16


@pytest.mark.parametrize("start", [0, 7], ids=["from its beginning", "from the middle"])
@pytest.mark.parametrize("window", [None, 4, 64])
def test_causal_kernels_give_what_masks_give(start: int, window: int | None) -> None:
    torch.manual_seed(0)
    keys, values = torch.randn(2, 3, 2, 32, 16)
    query = torch.randn(1, 4, 5, 16)
    attended: list[torch.Tensor] = []
    for is_fused in (False, True):
        layout = layout_of((Segment(0, 5, 1, start),), 0, CPU)
        layout.is_fused = is_fused
        attended += slot_attention(
            *(torch.nn.Module(), query, keys, values, None),
            slot_layout=layout,
            sliding_window=window,
        )[:1]
    torch.testing.assert_close(attended[1], attended[0], rtol=1e-5, atol=1e-5)
