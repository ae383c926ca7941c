"""The remote engine against a second emulator, over real HTTP."""

import math
from dataclasses import replace

import pytest
from tests.generated import chunks_of, text_of
from tests.remote_servers import GREEDY, started

from servemu.testing import Emulator
from servemu_engine.base import EmbedRequest, GenerateRequest, Sampling
from servemu_engine.errors import InvalidPrompt
from servemu_engine.remote import RemoteEngine, RemoteServer
from servemu_engine.remote_vectors import fitted

pytestmark = pytest.mark.anyio

CHAT = "databricks-meta-llama-3-3-70b-instruct"
EMBEDDINGS = "databricks-gte-large-en"


def engine_on(emulator: Emulator, model: str = CHAT) -> RemoteEngine:
    server = RemoteServer(f"{emulator.url}/serving-endpoints", key="emu.remote", model=model)
    return RemoteEngine(server, "stand-in")


async def test_answer_is_the_servers_token_by_token_with_its_own_counts(emulator: Emulator) -> None:
    async with started(engine_on(emulator)) as engine:
        chunks = await chunks_of(engine, GREEDY)
        assert (engine.info.kind, engine.info.architecture) == ("remote", CHAT)
    assert "lighthouses flash night" in text_of(chunks)
    assert [c.num_tokens for c in chunks] == [1] * (len(chunks) - 1) + [0]
    assert [c.finish_reason for c in chunks if c.finish_reason] == ["stop"]
    assert chunks[-1].num_prompt_tokens == 11


async def test_sampling_goes_along(emulator: Emulator) -> None:
    sampling = Sampling(temperature=1.0, max_tokens=5, logprobs=True, top_logprobs=2)
    request = replace(GREEDY, sampling=sampling, n=2)
    async with started(engine_on(emulator)) as engine:
        chunks = await chunks_of(engine, request)
        stopped = await chunks_of(engine, replace(GREEDY, sampling=replace(sampling, stop=(" ",))))
    assert {c.index: c.finish_reason for c in chunks if c.finish_reason} == {
        0: "length",
        1: "length",
    }
    assert sum(c.num_tokens for c in chunks) == 10
    said = [token for chunk in chunks for token in chunk.logprobs]
    assert len(said) == 10 and all(len(token.top) == 2 for token in said)
    assert " " not in text_of(stopped)


async def test_raw_prompt_goes_to_completions(emulator: Emulator) -> None:
    request = GenerateRequest(prompt="Once upon", use_chat_template=False)
    async with started(engine_on(emulator)) as engine:
        with pytest.raises(InvalidPrompt, match='unknown field "prompt"'):
            await chunks_of(engine, request)


@pytest.mark.parametrize(("dimensions", "normalize"), [(None, False), (1024, True), (1536, True)])
async def test_vectors_have_the_played_dimension_and_norm(
    emulator: Emulator, dimensions: int | None, normalize: bool
) -> None:
    async with started(engine_on(emulator, EMBEDDINGS)) as engine:
        asked = EmbedRequest(("a cat", "the cat", "bonds"), dimensions, normalize)
        a, b, c = await engine.embed(engine.prepare_embed(asked))
    assert {len(a), len(b), len(c)} == {dimensions or 1024}
    assert math.isclose(math.hypot(*a), 1.0) is normalize
    assert sum(map(float.__mul__, a, b)) > sum(map(float.__mul__, a, c))


@pytest.mark.parametrize("dimensions", [4, 7, 64])
def test_growing_keeps_every_distance(dimensions: int) -> None:
    one, other = [1.0, 2.0, -3.0, 0.5], [0.0, 1.0, 1.0, 9.0]
    grown, grown_other = (fitted(v, dimensions, False) for v in (one, other))
    assert math.dist(grown, grown_other) == pytest.approx(math.dist(one, other))
    assert len(fitted(one, 2, True)) == 2
