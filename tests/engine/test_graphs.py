"""Decoding steps that were captured once and replayed, beside the same steps run anew.

The capture of these tests records the operators of torch that a step runs, and runs those again: a
number of Python in them stays what it was, as in a CUDA graph.
"""

from collections.abc import Callable, Sequence

import pytest
import torch
from tests.tiny_models import FAMILIES, tiny
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from servemu_engine.base import Sampling
from servemu_engine.cache import Segment
from servemu_engine.graphs import Shape, shape_for
from servemu_engine.runner import Runner
from servemu_engine.scheduler import Scheduler
from servemu_engine.sequence import Sequence as EngineSequence
from servemu_engine.slots import Capacity

CACHED = (
    "llama",
    "mistral with sliding window",
    "gemma2 with capped scores",
    "gpt2 with learned positions",
)
"""One of each kind of attention."""


class Recording(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch is, here
    """Operators as they ran. Refuses what a CUDA graph cannot hold: values read by the host, and
    tensors made of the host's."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls: list[tuple[Callable[..., object], tuple[object, ...], dict[str, object]]] = []
        self._results: list[object] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.lift_fresh.default):
            raise RuntimeError(f"{func} in a graph")
        result = func(*args, **(kwargs or {}))
        self._calls.append((func, args, kwargs or {}))
        self._results.append(result)
        return result

    def again(self, wanted: Tensor) -> Tensor:
        """What `wanted`, a result of then, is now."""
        now: dict[int, object] = {}

        def current(value: object) -> object:
            return now.get(id(value), value)

        for (func, args, kwargs), result in zip(self._calls, self._results, strict=True):
            again = func(*tree_map(current, args), **tree_map(current, kwargs))
            now.update(zip(map(id, tree_flatten(result)[0]), tree_flatten(again)[0], strict=True))
        tensor = now[id(wanted)]
        assert isinstance(tensor, Tensor)
        return tensor


class Recorder:
    """What captures; `captures` makes one pool of memory after the other, of which this counts."""

    def __init__(self) -> None:
        self.num_pools = 0
        self.num_captured = 0
        self.num_replayed = 0

    def captures(self) -> Callable[[Callable[[], Tensor]], Callable[[], Tensor]]:
        self.num_pools += 1
        return self.capture

    def capture(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.num_captured += 1
        recording = Recording()
        with recording:
            logits = step()

        def replay() -> Tensor:
            self.num_replayed += 1
            return recording.again(logits)

        return replay


class Device:
    """A checked runner under a scheduler of its own."""

    def __init__(self, family: str, capacity: Capacity, recorder: Recorder | None = None) -> None:
        captures = None if recorder is None else recorder.captures
        self._runner = Runner(tiny(FAMILIES[family]), num_threads=1, captures=captures)
        self._runner.check()
        self._scheduler = Scheduler(capacity, prefill_chunk=64)
        self.asked: list[EngineSequence] = []

    def add(self, *prompts: Sequence[int]) -> list[EngineSequence]:
        greedy = Sampling(temperature=0)
        added = [EngineSequence(tuple(p), greedy, 0, run_ahead=10**9) for p in prompts]
        for sequence in added:
            self._scheduler.add(sequence)
        self.asked += added
        return added

    def cancel(self, sequence: EngineSequence) -> None:
        self._scheduler.remove(sequence)

    def run(self, num_steps: int, num_tokens: int = 10**9) -> None:
        """Answers end after `num_tokens`."""
        for _ in range(num_steps):
            if not self._scheduler.has_work:
                return
            step = self._scheduler.schedule()
            sampled = self._runner.run(step)
            for row in step.rows:
                row.sequence.num_cached += row.count
            for row, token in sampled:
                row.sequence.tokens.append(token.token)
                if row.sequence.num_generated >= num_tokens:
                    self._scheduler.remove(row.sequence)

    @property
    def answers(self) -> list[list[int]]:
        return [sequence.tokens for sequence in self.asked]


def prompts_of(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, 300, (n,), generator=generator).tolist() for n in lengths]


def both(
    family: str, capacity: Capacity, script: Callable[[Device], None]
) -> tuple[list[list[int]], list[list[int]], Recorder]:
    """Answers of the script run anew, and replayed."""
    recorder = Recorder()
    anew, replayed = Device(family, capacity), Device(family, capacity, recorder)
    script(anew)
    script(replayed)
    return anew.answers, replayed.answers, recorder


@pytest.mark.parametrize("family", CACHED)
def test_replayed_steps_give_the_tokens_of_steps_run_anew(family: str) -> None:
    def script(device: Device) -> None:
        device.add(*prompts_of(5, 1, 40, 17, 30))
        device.run(100, num_tokens=24)

    anew, replayed, recorder = both(family, Capacity(5, 2000, 400), script)
    assert replayed == anew
    assert {len(tokens) for tokens in anew} == {29, 25, 64, 41, 54}
    assert recorder.num_replayed >= 20
    assert recorder.num_captured < 8


def test_answers_that_outgrow_a_graph_and_their_slots_go_on_in_others() -> None:
    def script(device: Device) -> None:
        device.add(*prompts_of(246, 3))
        device.run(40)

    capacity = Capacity(2, 2000, 1000, shortest=260)
    anew, replayed, recorder = both("llama", capacity, script)
    assert replayed == anew
    assert len(anew[0]) > 280
    # The check; lengths of 256 and 260, and of 512 in the cache's new memory.
    assert (recorder.num_captured, recorder.num_pools) == (1 + 2 + 1, 3)


def test_batch_that_grows_and_shrinks_with_cancelled_answers_is_the_same() -> None:
    def script(device: Device) -> None:
        first, second, third = device.add(*prompts_of(9, 20, 4))
        device.run(6)
        device.cancel(second)
        device.run(4)
        device.add(*prompts_of(30, 12, 7, 3))
        device.run(5)
        for sequence in (first, third):
            device.cancel(sequence)
        device.run(12)

    anew, replayed, recorder = both("gemma2 with capped scores", Capacity(8, 8000, 400), script)
    assert replayed == anew
    assert recorder.num_replayed >= 20


def test_lone_answer_in_a_high_slot_is_replayed_without_the_slots_before_it() -> None:
    def script(device: Device) -> None:
        *others, _ = device.add(*prompts_of(9, 20, 4, 11, 6, 8, 13))
        device.run(6)
        for sequence in others:
            device.cancel(sequence)
        device.run(6)

    anew, replayed, _ = both("llama", Capacity(8, 8000, 400), script)
    assert replayed == anew


def test_rows_that_nobody_is_in_leave_a_prompt_in_the_cache_as_it_was() -> None:
    def script(device: Device) -> None:
        (shared,) = prompts_of(64)
        done, *_ = device.add([*shared, 7], *prompts_of(5, 6))
        device.run(6)
        device.cancel(done)
        device.run(6)
        device.add([*shared, 9])
        device.run(12)

    anew, replayed, _ = both("llama", Capacity(4, 4000, 400), script)
    assert replayed == anew


def test_step_that_cannot_be_captured_is_run_anew(caplog: pytest.LogCaptureFixture) -> None:
    class Refusing(Recorder):
        def capture(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
            raise RuntimeError("operation not permitted when stream is capturing")

    device = Device("llama", Capacity(2, 800, 400), Refusing())
    device.add(*prompts_of(5))
    device.run(5)
    plain = Device("llama", Capacity(2, 800, 400))
    plain.add(*prompts_of(5))
    plain.run(5)
    assert device.answers == plain.answers
    assert "LlamaForCausalLM decodes without CUDA graphs: operation not permitted" in caplog.text


@pytest.mark.parametrize(
    "step",
    [lambda: torch.ones(3) * torch.ones(1).item(), lambda: torch.tensor([1.0])],
    ids=["a value that the host reads", "a tensor of the host's"],
)
def test_capture_of_these_tests_refuses_what_a_graph_cannot_hold(
    step: Callable[[], Tensor],
) -> None:
    with pytest.raises(RuntimeError, match="in a graph"):
        Recorder().capture(step)


def test_graph_with_other_logits_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    class Wrong(Recorder):
        def capture(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
            logits = step().flip(-1)
            return lambda: logits

    Device("llama", Capacity(2, 800, 400), Wrong())
    assert "without CUDA graphs: other logits" in caplog.text


@pytest.mark.parametrize(
    ("slots", "longest", "expected"),
    [
        ((0,), 5, Shape(1, 256, True)),
        ((0, 1, 2), 257, Shape(4, 512, True)),
        ((1, 2, 3), 256, Shape(4, 256, True)),
        ((1, 2, 3, 4), 256, Shape(6, 256, True)),
        ((0, 1, 2, 3, 4, 5), 900, Shape(6, 1000, True)),
        ((5,), 5, Shape(1, 256, False)),
        ((3, 5), 5, Shape(2, 256, False)),
    ],
)
def test_shape_of_a_graph_holds_its_rows(
    slots: tuple[int, ...], longest: int, expected: Shape
) -> None:
    """Of a cache of six slots of 1,000 tokens."""
    segments = [Segment(i, i + 1, slot, longest - 1) for i, slot in enumerate(slots)]
    assert shape_for(segments, (6, 1000)) == expected
