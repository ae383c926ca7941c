"""The local engine: how it starts, tells of itself, fails and ends."""

import asyncio

import pytest
import torch
from tests.generated import answer_of
from tests.tiny_text import PROMPTS, WINDOW, Reference, raw

from servemu_engine.base import Sampling
from servemu_engine.cache import Layout
from servemu_engine.errors import EngineClosed, EngineDead, LoadFailed
from servemu_engine.local import LocalEngine, LocalOptions
from servemu_engine.runner import Runner

pytestmark = pytest.mark.anyio


async def test_leaving_early_frees_the_engine_for_others(engine: LocalEngine) -> None:
    forever = raw("a", Sampling(temperature=3, max_tokens=200, seed=1))
    for _ in range(8):
        async with engine.submit(engine.prepare(forever)) as generation:
            await anext(aiter(generation))
    assert await answer_of(engine, raw("the cat")) == await answer_of(engine, raw("the cat"))


async def test_device_failure_reaches_every_reader(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = LocalOptions(device="cpu", max_num_sequences=2, runner="transformers")
    engine = LocalEngine(reference.folder, "tiny", options)
    engine.start()

    def fail(*_: object) -> None:
        raise RuntimeError("device lost")

    monkeypatch.setattr(Runner, "run", fail)
    errors = await asyncio.gather(
        *(answer_of(engine, raw(prompt)) for prompt in PROMPTS), return_exceptions=True
    )
    assert [type(error) for error in errors] == [EngineDead] * len(PROMPTS)
    with pytest.raises(EngineDead):  # it began again, on the same device
        await answer_of(engine, raw("a"))
    engine.close()


def test_info_describes_what_was_loaded(engine: LocalEngine) -> None:
    info = engine.info
    assert (info.name, info.kind, info.architecture) == ("tiny", "local", "LlamaForCausalLM")
    assert (info.dtype, info.device, info.context_length) == ("float32", "cpu", WINDOW)
    assert info.num_bytes >= 4 * info.num_parameters > 0
    assert info.load_seconds > 0


def test_engine_that_is_not_started_or_closed_refuses(reference: Reference) -> None:
    engine = LocalEngine(reference.folder, "tiny", LocalOptions(device="cpu"))
    with pytest.raises(EngineClosed, match="'tiny' is not running"):
        engine.prepare(raw("a"))
    engine.start()
    engine.close()
    engine.close()
    with pytest.raises(EngineClosed):
        engine.prepare(raw("a"))


def test_cache_that_holds_no_sequence_is_a_failed_load(reference: Reference) -> None:
    engine = LocalEngine(reference.folder, "tiny", LocalOptions(device="cpu", kv_bytes=4096))
    with pytest.raises(LoadFailed, match=r"kv_bytes = 4096 holds 8 tokens"):
        engine.start()


def test_cache_is_sized_by_the_memory_that_is_free(reference: Reference) -> None:
    options = LocalOptions(
        device="cpu", num_models=2, free_memory=lambda device: {"cpu": 8192}[device]
    )
    engine = LocalEngine(reference.folder, "tiny", options)
    with pytest.raises(LoadFailed, match=r"kv_bytes = 3686 holds 7 tokens"):
        engine.start()


async def test_num_threads_holds_in_the_engines_thread_only(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    options = LocalOptions(device="cpu", num_threads=before + 1, runner="transformers")
    engine = LocalEngine(reference.folder, "tiny", options)
    engine.start()
    seen = []
    forward = Runner._forward

    def recording(self: Runner, ids: list[int], layout: Layout) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return forward(self, ids, layout)

    monkeypatch.setattr(Runner, "_forward", recording)
    await answer_of(engine, raw("a", Sampling(max_tokens=2)))
    engine.close()
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before
