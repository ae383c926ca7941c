"""Loading from a folder: what comes out, and every way it can fail."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from servemu_engine.errors import LoadFailed
from servemu_engine.loading import LoadedModel, load_causal_lm, load_encoder

VOCAB = {"<unk>": 0, "<pad>": 1, "the": 2, "cat": 3, "sat": 4}


def write_tokenizer(folder: Path, model_max_length: int | None = None) -> None:
    """A word tokenizer of five words, as transformers stores it."""
    tokenizer = Tokenizer(WordLevel(VOCAB, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
    }
    if model_max_length is not None:
        config["model_max_length"] = model_max_length
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_weights(folder: Path, model: torch.nn.Module) -> None:
    """Tensors without the shared head; `save_pretrained` would draw a progress bar."""
    state = {k: v.contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="session")
def llama_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-llama")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(VOCAB),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    (folder / "config.json").write_text(config.to_json_string())
    write_weights(folder, LlamaForCausalLM(config))
    write_tokenizer(folder)
    return folder


@pytest.fixture
def llama(llama_source: Path, tmp_path: Path) -> Path:
    """A folder of its own, to be broken."""
    return Path(shutil.copytree(llama_source, tmp_path / "tiny-llama"))


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-bert"
    folder.mkdir()
    config = BertConfig(
        vocab_size=len(VOCAB),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=48,
    )
    (folder / "config.json").write_text(config.to_json_string())
    write_weights(folder, BertModel(config, add_pooling_layer=False))
    write_tokenizer(folder, model_max_length=32)
    return folder


def load(folder: Path) -> LoadedModel:
    return load_causal_lm(folder, dtype="float32", device="cpu")


def test_loaded_model_tells_its_size_and_context(llama: Path) -> None:
    loaded = load(llama)
    stored = load_file(llama / "model.safetensors")
    assert loaded.num_parameters == sum(t.numel() for t in stored.values())
    assert loaded.num_bytes >= 4 * loaded.num_parameters
    assert (loaded.dtype, loaded.device, loaded.context_length) == ("float32", "cpu", 64)


def test_loaded_model_is_ready_for_inference(llama: Path) -> None:
    loaded = load(llama)
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    ids = torch.tensor([loaded.tokenizer.encode("the cat sat")])
    assert loaded.model(input_ids=ids).logits.shape == (1, 3, len(VOCAB))


def test_auto_dtype_follows_the_device(llama: Path) -> None:
    loaded = load_causal_lm(llama, dtype="auto", device="auto")
    expected = ("bfloat16", "cuda:0") if torch.cuda.is_available() else ("float32", "cpu")
    assert (loaded.dtype, loaded.device) == expected


def test_asked_dtype_is_used(llama: Path) -> None:
    loaded = load_causal_lm(llama, dtype="bfloat16", device="cpu")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}


def test_encoder_without_pooler_weights_loads(bert: Path) -> None:
    loaded = load_encoder(bert, dtype="float32", device="cpu")
    ids = torch.tensor([loaded.tokenizer.encode("the cat")])
    assert loaded.model(input_ids=ids).last_hidden_state.shape == (1, 2, 16)


def test_context_is_the_smaller_of_positions_and_tokenizer(bert: Path) -> None:
    assert load_encoder(bert, dtype="float32", device="cpu").context_length == 32


def test_loading_writes_nothing_to_the_terminal(
    llama: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    load(llama)
    assert capfd.readouterr() == ("", "")


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"'nowhere': there is no folder .*nowhere"):
        load(tmp_path / "nowhere")


def test_pickled_weights_are_refused_by_name(llama: Path) -> None:
    (llama / "model.safetensors").rename(llama / "pytorch_model.bin")
    with pytest.raises(LoadFailed, match=r"pytorch_model\.bin is not safetensors"):
        load(llama)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["config.json"], r"has no config\.json"),
        (["model.safetensors"], r"has no \*\.safetensors file"),
        (["tokenizer.json", "tokenizer_config.json"], r"has no tokenizer\.json"),
    ],
)
def test_missing_file_is_named(llama: Path, names: list[str], message: str) -> None:
    for name in names:
        (llama / name).unlink()
    with pytest.raises(LoadFailed, match=message):
        load(llama)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "config.json is not valid JSON"),
        ("tokenizer.json", "{", "tokenizer.json is not valid JSON"),
        ("tokenizer.json", '{"version": "1.0", "model": {"type": "X"}}', "cannot be loaded"),
        ("model.safetensors", "garbage", "cannot be loaded"),
    ],
)
def test_broken_file_fails_with_its_cause(
    llama: Path, name: str, content: str, message: str
) -> None:
    (llama / name).write_text(content)
    with pytest.raises(LoadFailed, match=message) as failure:
        load(llama)
    assert "'tiny-llama'" in str(failure.value)
    assert failure.value.__cause__ is not None


def test_truncated_safetensors_fail(llama: Path) -> None:
    weights = llama / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(LoadFailed, match="'tiny-llama' cannot be loaded"):
        load(llama)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model_type", "no_such_architecture", "no_such_architecture"),
        ("hidden_size", "wide", "hidden_size"),
        ("hidden_size", 32, "cannot be loaded"),
        ("num_hidden_layers", 3, r"lack 9 of the tensors .* 'model\.layers\.2"),
    ],
)
def test_config_that_does_not_fit_the_weights_fails(
    llama: Path, key: str, value: object, message: str
) -> None:
    config = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(LoadFailed, match=message):
        load(llama)


@pytest.mark.parametrize(
    ("dtype", "device", "message"),
    [
        ("int3", "cpu", r"dtype 'int3' is not one of"),
        ("float32", "toaster", "toaster"),
    ],
)
def test_unknown_dtype_or_device_fails(llama: Path, dtype: str, device: str, message: str) -> None:
    with pytest.raises(LoadFailed, match=message):
        load_causal_lm(llama, dtype=dtype, device=device)


def test_out_of_memory_names_dtype_and_device(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")

    monkeypatch.setattr(torch.nn.Module, "to", exhausted)
    with pytest.raises(LoadFailed, match="does not fit into the memory of cpu as float32"):
        load(llama)


def test_importing_the_file_imports_no_torch() -> None:
    code = "import servemu_engine.loading, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
