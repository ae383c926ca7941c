"""Texts to vectors: their dimensions, their company, and what happens when it stops."""

import asyncio
import json
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel

from servemu_engine.base import Embedder, EmbedRequest
from servemu_engine.embeddings import EmbedderOptions, LocalEmbedder
from servemu_engine.errors import EngineClosed, EngineDead, InvalidPrompt

pytestmark = pytest.mark.anyio

WORDS = [f"w{number}" for number in range(40)]
WIDTH = 16


def write_encoder(folder: Path) -> None:
    """A two-layer BERT over 40 words, window 12."""
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        initializer_range=0.5,
    )
    (folder / "config.json").write_text(config.to_json_string())
    model = BertModel(config, add_pooling_layer=False)
    save_file(dict(model.state_dict()), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-encoder")
    write_encoder(folder)
    return folder


@pytest.fixture(scope="session")
def cpu(compiled_libraries: Path) -> EmbedderOptions:
    return EmbedderOptions("float32", "cpu", compiled_libraries)


@pytest.fixture
def embedder(encoder_folder: Path, cpu: EmbedderOptions) -> Iterator[LocalEmbedder]:
    embedder = LocalEmbedder(encoder_folder, "tiny", cpu)
    embedder.start()
    yield embedder
    embedder.close()


@pytest.fixture
def plain(encoder_folder: Path) -> BertModel:
    """The same weights without any of our code."""
    model = BertModel.from_pretrained(encoder_folder, add_pooling_layer=False)
    return model.eval()


def ids_of(text: str) -> list[int]:
    """[CLS] words [SEP], cut to the window of 12."""
    return [2, *[4 + WORDS.index(word) for word in text.split()][:10], 3]


def expected_mean(plain: BertModel, text: str) -> list[float]:
    with torch.inference_mode():
        hidden = plain(input_ids=torch.tensor([ids_of(text)])).last_hidden_state
    mean: list[float] = hidden[0].mean(0).tolist()
    return mean


async def embed(embedder: LocalEmbedder, request: EmbedRequest) -> list[list[float]]:
    return [list(v) for v in await embedder.embed(embedder.prepare_embed(request))]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def sentence(start: int, length: int) -> str:
    return " ".join(WORDS[(start + step * 7) % 40] for step in range(length))


def test_info_tells_what_was_loaded(embedder: LocalEmbedder) -> None:
    as_embedder: Embedder = embedder
    info = as_embedder.info
    assert (info.name, info.kind, info.architecture) == ("tiny", "local", "BertModel")
    assert (info.dtype, info.device, info.context_length) == ("float32", "cpu", 12)
    assert info.num_parameters > 1000 and info.load_seconds > 0


async def test_vector_is_the_mean_of_the_plain_model(
    embedder: LocalEmbedder, plain: BertModel
) -> None:
    (vector,) = await embed(embedder, EmbedRequest(("w1 w2 w3",)))
    assert vector == pytest.approx(expected_mean(plain, "w1 w2 w3"), abs=1e-5)


async def test_vectors_do_not_depend_on_the_batch(
    embedder: LocalEmbedder, plain: BertModel
) -> None:
    texts = tuple(sentence(start, 1 + start % 10) for start in range(40))
    vectors = await embed(embedder, EmbedRequest(texts))
    for text, vector in zip(texts, vectors, strict=True):
        assert cosine(vector, expected_mean(plain, text)) > 0.9999


async def test_calls_at_once_share_a_forward_pass_and_keep_their_own_settings(
    encoder_folder: Path, plain: BertModel, cpu: EmbedderOptions
) -> None:
    embedder = LocalEmbedder(encoder_folder, "tiny", cpu)
    embedder.start()
    requests = [
        EmbedRequest(("w1 w2", "w3")),
        EmbedRequest(("w4 w5 w6",), normalize=True),
        EmbedRequest(("w7",), dimensions=24),
    ]
    results = await asyncio.gather(*(embed(embedder, request) for request in requests))
    embedder.close()
    assert [[len(v) for v in vectors] for vectors in results] == [[16, 16], [16], [24]]
    assert results[0][1] == pytest.approx(expected_mean(plain, "w3"), abs=1e-5)
    assert math.hypot(*results[1][0]) == pytest.approx(1.0, abs=1e-6)
    assert cosine(results[1][0], expected_mean(plain, "w4 w5 w6")) > 0.9999


async def test_integers_are_told_and_near_and_do_not_depend_on_the_batch(
    encoder_folder: Path, plain: BertModel, cpu: EmbedderOptions
) -> None:
    embedder = LocalEmbedder(encoder_folder, "tiny", replace(cpu, dtype="int16"))
    embedder.start()
    texts = ("w1 w2", "w3", "w4 w5 w6 w7")
    vectors = await embed(embedder, EmbedRequest(texts))
    alone = [(await embed(embedder, EmbedRequest((text,))))[0] for text in texts]
    dtype = embedder.info.dtype
    embedder.close()
    assert dtype == "int16"
    expected = [expected_mean(plain, text) for text in texts]
    assert all(cosine(a, b) > 0.99999 for a, b in zip(vectors, expected, strict=True))
    assert [pytest.approx(vector, abs=1e-6) for vector in alone] == vectors


async def test_norm_is_as_pooled_unless_normalised(
    embedder: LocalEmbedder, plain: BertModel
) -> None:
    (as_pooled,) = await embed(embedder, EmbedRequest(("w1 w9",)))
    (unit,) = await embed(embedder, EmbedRequest(("w1 w9",), normalize=True))
    assert math.hypot(*as_pooled) == pytest.approx(math.hypot(*expected_mean(plain, "w1 w9")))
    assert abs(math.hypot(*as_pooled) - 1) > 0.1
    assert math.hypot(*unit) == pytest.approx(1.0, abs=1e-6)


async def test_more_dimensions_keep_every_dot_product(embedder: LocalEmbedder) -> None:
    texts = ("w1 w2", "w3", "w4 w5 w6 w7")
    own = torch.tensor(await embed(embedder, EmbedRequest(texts)))
    grown = torch.tensor(await embed(embedder, EmbedRequest(texts, dimensions=64)))
    assert grown.shape == (3, 64)
    assert torch.allclose(grown @ grown.T, own @ own.T, atol=1e-4)


async def test_only_a_few_changes_of_dimension_are_kept(embedder: LocalEmbedder) -> None:
    for dimensions in range(1, 16):
        [vector] = await embed(embedder, EmbedRequest(("w1",), dimensions=dimensions))
        assert len(vector) == dimensions
    assert embedder._encoder is not None
    assert embedder._encoder._projection.cache_info().currsize == 4


@pytest.mark.parametrize(
    ("context_length", "num_billed"),
    [(None, 12), (8, 8), (12, 12), (20, 20), (1000, 32)],
)
async def test_long_text_is_cut_to_the_window_and_billed_to_the_played_context(
    embedder: LocalEmbedder, context_length: int | None, num_billed: int
) -> None:
    request = EmbedRequest((sentence(0, 30),), context_length=context_length)
    prepared = embedder.prepare_embed(request)
    assert prepared.num_prompt_tokens == num_billed
    (ids,) = prepared.token_ids
    assert ids[-1] == 3 and len(ids) == min(num_billed, 12)


async def test_cut_text_has_the_vector_of_its_beginning(
    embedder: LocalEmbedder, plain: BertModel
) -> None:
    text = sentence(0, 30)
    (vector,) = await embed(embedder, EmbedRequest((text,)))
    assert cosine(vector, expected_mean(plain, text)) > 0.9999


async def test_empty_text_has_a_vector(embedder: LocalEmbedder) -> None:
    prepared = embedder.prepare_embed(EmbedRequest(("",)))
    assert prepared.token_ids == ((2, 3),)
    assert all(math.isfinite(x) for x in (await embedder.embed(prepared))[0])


def test_many_threads_cut_their_texts_at_once(embedder: LocalEmbedder) -> None:
    requests = [EmbedRequest((sentence(n, 30), sentence(n, n % 9))) for n in range(200)]
    with ThreadPoolExecutor(8) as threads:
        prepared = list(threads.map(embedder.prepare_embed, requests))
    assert prepared == [embedder.prepare_embed(request) for request in requests]


@pytest.mark.parametrize("texts", [(), ("\ud800",)])
def test_what_cannot_be_tokenised_is_refused(
    embedder: LocalEmbedder, texts: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidPrompt):
        embedder.prepare_embed(EmbedRequest(texts))


async def test_dead_device_fails_all_who_wait_and_all_who_come(
    embedder: LocalEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = embedder.prepare_embed(EmbedRequest(("w1",)))

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("device fell off the bus")

    monkeypatch.setattr(BertModel, "forward", broken)
    waiting = await asyncio.gather(
        *(embedder.embed(prepared) for _ in range(3)), return_exceptions=True
    )
    assert [type(w) for w in waiting] == [EngineDead] * 3
    assert str(waiting[0]) == "embedder 'tiny' died: device fell off the bus"
    with pytest.raises(EngineDead, match="device fell off the bus") as failure:
        await embedder.embed(prepared)
    assert isinstance(failure.value.__cause__, RuntimeError)


async def test_close_fails_who_waits_and_who_comes(
    embedder: LocalEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = EmbedRequest(tuple(sentence(i, 10) for i in range(2000)))
    prepared = embedder.prepare_embed(request)
    running, closing = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    forward, join = BertModel.forward, threading.Thread.join

    def hold_first_batch(model: BertModel, **inputs: torch.Tensor) -> object:
        loop.call_soon_threadsafe(running.set)
        closing.wait()
        return forward(model, **inputs)

    def join_after_release(thread: threading.Thread, timeout: float | None = None) -> None:
        closing.set()
        join(thread, timeout)

    monkeypatch.setattr(BertModel, "forward", hold_first_batch)
    monkeypatch.setattr(threading.Thread, "join", join_after_release)
    waiting = [asyncio.create_task(embed(embedder, r)) for r in (request, EmbedRequest(("w1",)))]
    await running.wait()
    embedder.close()
    embedder.close()
    for call in waiting:
        with pytest.raises(EngineClosed, match="'tiny' is closed"):
            await call
    with pytest.raises(EngineClosed, match="'tiny' is closed"):
        await embedder.embed(prepared)
    with pytest.raises(EngineClosed, match="'tiny' is closed"):
        embedder.prepare_embed(request)


async def test_cancelled_call_leaves_the_others_alone(
    embedder: LocalEmbedder, plain: BertModel
) -> None:
    long = EmbedRequest(tuple(sentence(i, 10) for i in range(500)))
    leaver = asyncio.create_task(embed(embedder, long))
    stayer = asyncio.create_task(embed(embedder, EmbedRequest(("w5 w6",))))
    await asyncio.sleep(0)
    leaver.cancel()
    (vector,) = await stayer
    assert cosine(vector, expected_mean(plain, "w5 w6")) > 0.9999
    with pytest.raises(asyncio.CancelledError):
        await leaver


async def test_embedder_that_was_never_started_refuses(encoder_folder: Path) -> None:
    embedder = LocalEmbedder(encoder_folder, "tiny")
    with pytest.raises(EngineClosed):
        embedder.prepare_embed(EmbedRequest(("w1",)))
    embedder.close()
