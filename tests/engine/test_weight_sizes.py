"""What weights take: told from their files before a load, and counted after it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from servemu_engine.base import EngineInfo
from servemu_engine.embeddings import EmbedderOptions, LocalEmbedder
from servemu_engine.local import LocalEngine, LocalOptions
from servemu_engine.runners import RunnerChoice
from servemu_engine.weight_sizes import memory_of, most_memory_of

Make = Callable[..., Path]
VOCAB, HIDDEN, INNER = 4096, 640, 1280
EMBEDDING = VOCAB * HIDDEN
MATRICES = 4 * HIDDEN * HIDDEN + 3 * HIDDEN * INNER
NORMS = 3 * HIDDEN


@pytest.fixture(scope="module")
def llama(byte_llama: Make) -> Callable[[bool], Path]:
    """Wide enough for rows of more than one block; most of it is the embedding."""
    made: dict[bool, Path] = {}

    def folder(tied: bool) -> Path:
        if tied not in made:
            shape = {"hidden_size": HIDDEN, "intermediate_size": INNER, "vocab_size": VOCAB}
            heads = {"num_attention_heads": 10, "num_key_value_heads": 10}
            made[tied] = byte_llama("sized", tie_word_embeddings=tied, **shape, **heads)
        return made[tied]

    return folder


def infos(folder: Path, libraries: Path, dtype: str, runner: RunnerChoice) -> list[EngineInfo]:
    """Before and after the start."""
    options = LocalOptions(dtype, "cpu", kv_bytes=1 << 22, runner=runner, compiled=libraries)
    engine = LocalEngine(folder, "sized", options)
    before = engine.info
    engine.start()
    engine.close()
    return [before, engine.info]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int16"])
@pytest.mark.parametrize("runner", ["compiled", "transformers"])
def test_memory_told_before_the_load_is_no_less_than_what_is_held_and_not_much_more(
    llama: Callable[[bool], Path],
    compiled_libraries: Path,
    runner: RunnerChoice,
    dtype: str,
    tied: bool,
) -> None:
    before, after = infos(llama(tied), compiled_libraries, dtype, runner)
    assert after.num_bytes <= before.num_bytes <= 1.02 * after.num_bytes
    wide, narrow = {"float32": (4, 4), "bfloat16": (2, 2), "int16": (4, 2)}[dtype]
    numbers = wide * EMBEDDING + narrow * (MATRICES + EMBEDDING)
    assert numbers <= after.num_bytes <= 1.02 * numbers
    assert after.dtype == dtype


def test_memory_of_transformers_counts_each_tensor_once(llama: Callable[[bool], Path]) -> None:
    count = MATRICES + NORMS + EMBEDDING
    sizes = {dtype: memory_of(llama(True), dtype) for dtype in ("auto", "float32", "bfloat16")}
    assert sizes == {"auto": 4 * count, "float32": 4 * count, "bfloat16": 2 * count}


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_memory_of_an_encoder_is_told_and_counted(
    tmp_path: Path,
    byte_tokenizer: Callable[..., PreTrainedTokenizerFast],
    compiled_libraries: Path,
    dtype: str,
) -> None:
    config = BertConfig(
        vocab_size=257,
        hidden_size=256,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=1024,
        max_position_embeddings=64,
    )
    byte_tokenizer().save_pretrained(tmp_path)
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    embedder = LocalEmbedder(tmp_path, "e", EmbedderOptions(dtype, "cpu", compiled_libraries))
    before = embedder.info.num_bytes
    embedder.start()
    held = embedder.info.num_bytes
    embedder.close()
    matrices = 4 * 256 * 256 + 2 * 256 * 1024 + 256 * 256  # of the layer, and an unused pooler
    numbers = 4 * (257 + 64 + 2) * 256 + (2 if dtype == "int16" else 4) * matrices
    assert numbers <= held <= 1.02 * numbers
    assert held <= before <= 1.1 * held


def test_memory_of_what_is_no_model_is_not_told(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert (memory_of(tmp_path, "auto"), most_memory_of(tmp_path, "auto")) == (0, 0)
