"""The remote engine on a real server of somebody else: `transformers serve`, on a tiny Llama."""

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.generated import chunks_of, text_of
from transformers import PreTrainedTokenizerFast

from servemu_engine.base import GenerateRequest, Message, Sampling
from servemu_engine.errors import InvalidPrompt, LoadFailed
from servemu_engine.remote import RemoteEngine, RemoteServer

pytestmark = pytest.mark.anyio

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GREEDY = GenerateRequest(
    messages=(Message("user", "Hi"),), sampling=Sampling(temperature=0, max_tokens=12)
)
PROMPT_TOKENS = 21
"""A byte is a token: the template writes 19 of them and 2 special ones around "Hi"."""


@dataclass(frozen=True)
class Foreign:
    url: str
    model: str


@pytest.fixture(scope="module")
def folder(
    byte_llama: Callable[..., Path], byte_tokenizer: Callable[..., PreTrainedTokenizerFast]
) -> Path:
    """Random weights that never end by themselves; every byte is a token."""
    special = ("<|im_start|>", "<|im_end|>")
    tokenizer = byte_tokenizer(vocab_size=258, special=special, template=TEMPLATE)
    return byte_llama("foreign", 0, tokenizer, max_position_embeddings=4096)


@pytest.fixture(scope="module")
def foreign(folder: Path) -> Iterator[Foreign]:
    """The server, a process of its own; uvicorn says on which port it is."""
    serve = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", serve, "serve", str(folder), "--port", "0"]
    command += ["--host", "127.0.0.1", "--device", "cpu", "--dtype", "float32"]
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(folder.parent)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=offline) as running:
        try:
            assert running.stderr is not None
            said = []
            for line in running.stderr:
                said.append(line)
                if found := re.search(r"running on (http://\S+)", line):
                    yield Foreign(f"{found[1]}/v1", str(folder))
                    break
            else:
                pytest.fail("".join(said))
        finally:
            running.kill()


@asynccontextmanager
async def started(foreign: Foreign, model: str | None = None) -> AsyncIterator[RemoteEngine]:
    engine = RemoteEngine(RemoteServer(foreign.url, model=model or foreign.model), "stand-in")
    engine.start()
    try:
        yield engine
    finally:
        engine.close()


async def test_answer_comes_in_pieces_with_the_servers_counts(foreign: Foreign) -> None:
    async with started(foreign) as engine:
        chunks = await chunks_of(engine, GREEDY)
    assert len(chunks) > 2
    assert sum(chunk.num_tokens for chunk in chunks) == 12
    assert (chunks[-1].finish_reason, chunks[-1].num_prompt_tokens) == ("length", PROMPT_TOKENS)


async def test_several_answers_are_asked_for_one_by_one(foreign: Foreign) -> None:
    async with started(foreign) as engine:
        chunks = await chunks_of(engine, replace(GREEDY, n=2))
    assert text_of(chunks, 0) == text_of(chunks, 1) != ""
    assert [c.index for c in chunks if c.finish_reason] == [0, 1]


async def test_text_ends_before_its_stop_string(foreign: Foreign) -> None:
    async with started(foreign) as engine:
        whole = text_of(await chunks_of(engine, GREEDY))
        stop = whole[3:5]
        sampling = Sampling(temperature=0, max_tokens=12, stop=(stop,))
        cut = await chunks_of(engine, replace(GREEDY, sampling=sampling))
    assert (text_of(cut), cut[-1].finish_reason) == (whole[: whole.index(stop)], "stop")


async def test_reader_that_leaves_does_not_hold_up_the_next(foreign: Foreign) -> None:
    endless = replace(GREEDY, sampling=Sampling(temperature=0, max_tokens=3000))
    async with started(foreign) as engine:
        async with engine.submit(engine.prepare(endless)) as generation:
            assert (await anext(generation)).num_tokens == 1
        assert sum(chunk.num_tokens for chunk in await chunks_of(engine, GREEDY)) == 12


async def test_refusal_is_told_in_its_own_words(foreign: Foreign) -> None:
    async with started(foreign, "another") as engine:
        with pytest.raises(InvalidPrompt, match="^Server is pinned to .*; requested 'another'"):
            await chunks_of(engine, GREEDY)


def test_model_must_be_named_where_none_is_listed(foreign: Foreign) -> None:
    with pytest.raises(LoadFailed, match="set remote_model"):
        RemoteEngine(RemoteServer(foreign.url), "stand-in").start()
