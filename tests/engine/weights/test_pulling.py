"""Models of one's own: folders, GGUF files and hub repositories, under a name of one's own."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from tokenizers import Tokenizer
from tokenizers.models import BPE

from servemu_engine.errors import LoadFailed
from servemu_engine.gguf_conversion import convert
from servemu_engine.loading import load_causal_lm
from servemu_engine.weight_sources import Progress, WheelSource
from servemu_engine.weights import (
    ModelNameInvalid,
    ModelNameTaken,
    ModelStore,
    StoredModel,
    WeightsUnavailable,
)

Files = dict[str, bytes]
Gguf = tuple[Path, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]


def test_folder_is_copied_with_what_the_model_needs(
    store: ModelStore, root: Path, folder: Path, model: Files, contents: Callable[[Path], Files]
) -> None:
    stored = store.pull(str(folder), "my-model")
    size = sum(map(len, model.values()))
    assert stored == StoredModel(
        "my-model", root / "my-model", f"folder:{folder}", "float32", size, "embedding"
    )
    copied = contents(root / "my-model")
    del copied["servemu.json"]
    assert (copied, store.list()) == (model, [stored])
    assert store.ensure("my-model") == stored.path


def test_folder_without_a_name_is_called_as_it_is(store: ModelStore, folder: Path) -> None:
    assert store.pull(str(folder)).name == "mine"


def test_folder_of_links_is_stored_as_files(
    store: ModelStore, folder: Path, tmp_path: Path, safetensors: bytes
) -> None:
    (folder / "model.safetensors").rename(tmp_path / "blob")
    (folder / "model.safetensors").symlink_to(tmp_path / "blob")
    copy = store.pull(str(folder)).path / "model.safetensors"
    assert (copy.is_symlink(), copy.read_bytes()) == (False, safetensors)


def test_progress_of_a_copy_ends_at_its_size(store: ModelStore, folder: Path, model: Files) -> None:
    seen: list[tuple[str, int, int | None]] = []
    store.pull(str(folder), progress=lambda *step: seen.append(step))
    size = sum(map(len, model.values()))
    assert [step for step in seen if step[0] == "copy"][-1] == ("copy", size, size)
    assert list(dict.fromkeys(phase for phase, _, _ in seen)) == ["copy", "check"]


def test_folder_pulled_again_is_read_again(store: ModelStore, folder: Path) -> None:
    store.pull(str(folder))
    (folder / "tokenizer.json").write_bytes(b'{"version": "2"}')
    again = store.pull(str(folder))
    assert (again.path / "tokenizer.json").read_bytes() == b'{"version": "2"}'


def test_name_of_another_model_is_not_taken_over(
    store: ModelStore, folder: Path, tmp_path: Path
) -> None:
    stored = store.pull(str(folder))
    other = folder.rename(tmp_path / "other")
    with pytest.raises(ModelNameTaken, match=rf"^model name 'mine' is taken by folder:{folder}: "):
        store.pull(str(other), "mine")
    with pytest.raises(ModelNameTaken, match="'tiny' is taken by a model that servemu knows"):
        store.pull(str(other), "tiny")
    assert store.list() == [stored]


@pytest.mark.parametrize("name", ["../mine", "a b", ".hidden", "/tmp/x", "a/../b"])
def test_name_that_is_a_path_is_refused(store: ModelStore, folder: Path, name: str) -> None:
    with pytest.raises(ModelNameInvalid):
        store.pull(str(folder), name)
    assert store.list() == []


def write(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: (folder / "model.safetensors").unlink(),
            "model 'mine': pytorch_model.bin is not safetensors; pickled weights can run code",
        ),
        (
            lambda folder: write(
                folder,
                "config.json",
                {"model_type": "own", "auto_map": {"AutoConfig": "own_code.OwnConfig"}},
            ),
            r"model 'mine' brings code of its own \(own_code.OwnConfig\) for .* 'own'",
        ),
        (lambda folder: (folder / "config.json").unlink(), "model 'mine': .* has no config.json"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"x"),
            "model.safetensors is not a safetensors file",
        ),
    ],
    ids=["pickle", "code", "config", "broken"],
)
def test_folder_that_is_not_to_be_trusted_is_refused_and_leaves_nothing(
    store: ModelStore, root: Path, folder: Path, change: Callable[[Path], None], message: str
) -> None:
    change(folder)
    with pytest.raises(LoadFailed, match=message):
        store.pull(str(folder))
    assert (store.list(), [p.name for p in root.iterdir()]) == ([], [".mine.lock"])


def test_code_for_an_architecture_of_transformers_is_harmless_and_left_behind(
    store: ModelStore, folder: Path
) -> None:
    config = {"model_type": "bert", "auto_map": {"AutoConfig": "modeling.OwnConfig"}}
    write(folder, "config.json", config)
    assert not list(store.pull(str(folder)).path.glob("*.py"))


def test_code_that_transformers_asks_for_when_it_loads_is_refused_too(folder: Path) -> None:
    config = {"model_type": "vit", "auto_map": {"AutoModelForCausalLM": "modeling.OwnModel"}}
    write(folder, "config.json", config)
    Tokenizer(BPE()).save(str(folder / "tokenizer.json"))
    with pytest.raises(LoadFailed, match="^model 'mine' cannot be loaded: it wants to run code of"):
        load_causal_lm(folder)


def test_gguf_becomes_a_float32_folder_that_loads(
    store: ModelStore, root: Path, tiny_gguf: Gguf
) -> None:
    file, embeddings = tiny_gguf
    file = file.rename(file.with_name("small.gguf"))
    told: list[tuple[str, int, int | None]] = []
    stored = store.pull(str(file), progress=lambda *step: told.append(step))
    tensors = sum(phase == "convert" for phase, _, _ in told) - 2
    assert told[: tensors + 2] == [
        ("convert", 0, None),
        *(("convert", done, tensors) for done in range(1, tensors + 1)),
        ("convert", 0, None),
    ]
    assert tensors > 1
    assert (stored.name, stored.source, stored.task) == ("small", f"gguf:{file}", "chat")
    loaded = load_causal_lm(stored.path, dtype="float32", device="cpu")
    assert np.array_equal(loaded.model.get_input_embeddings().weight.numpy(), embeddings)
    assert (loaded.context_length, loaded.tokenizer.eos_token) == (64, "<end>")
    assert "quantization_config" not in json.loads((stored.path / "config.json").read_text())
    assert store.ensure(str(file)) == stored.path


def test_broken_gguf_fails_with_its_name_and_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"not a GGUF file at all, but long enough to read")
    with pytest.raises(LoadFailed, match=r"^broken\.gguf cannot be converted: .*magic"):
        convert(tmp_path / "broken.gguf", tmp_path / "out")


def test_file_that_is_no_gguf_is_refused(store: ModelStore, folder: Path) -> None:
    with pytest.raises(
        LoadFailed, match=r"pytorch_model\.bin is neither a folder with .* nor a GGUF"
    ):
        store.pull(str(folder / "pytorch_model.bin"))


@pytest.mark.parametrize("source", ["x" * 300, "~nobody-of-that-name/model"])
def test_path_that_cannot_be_is_refused(store: ModelStore, source: str) -> None:
    with pytest.raises(WeightsUnavailable, match=r"^model '.*' cannot be read: "):
        store.pull(source)


def test_path_to_a_folder_is_used_as_it_is(store: ModelStore, tmp_path: Path) -> None:
    assert store.ensure(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["nonsense", "../x", "/no/such/folder", "no/such.gguf"])
def test_unknown_name_is_refused_with_the_known_ones(store: ModelStore, name: str) -> None:
    with pytest.raises(WeightsUnavailable, match=r"nor one of \['tiny'\]"):
        store.ensure(name)


@pytest.fixture
def hub(root: Path, source: WheelSource, safetensors: bytes) -> ModelStore:
    """A store whose hub has every repository."""
    config = b'{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}'

    def fetch(repository: str, target: Path, progress: Progress) -> None:
        (target / "config.json").write_bytes(config)
        (target / "model.safetensors").write_bytes(safetensors)

    return ModelStore(root, sources={"tiny": source}, fetch=fetch)


@pytest.mark.parametrize(
    ("name", "own_name"), [(None, "someone/small-model"), ("chat-1", "chat-1")]
)
def test_hub_id_is_stored_under_its_own_name_or_another(
    hub: ModelStore, root: Path, name: str | None, own_name: str
) -> None:
    stored = hub.pull("someone/small-model", name)
    assert hub.list() == [stored]
    assert (stored.name, stored.source) == (own_name, "hub:someone/small-model")
    assert (stored.path, stored.task) == (root / own_name.replace("/", "--"), "chat")


def test_hub_id_is_fetched_once(hub: ModelStore, store: ModelStore) -> None:
    assert hub.ensure("someone/model") == store.pull("someone/model").path


class Hub:
    """In place of `snapshot_download`: what the repository holds, and what was asked for."""

    def __init__(self, safetensors: bytes) -> None:
        self.files: tuple[str, ...] = ()
        self.asked: list[dict[str, Any]] = []
        self._safetensors = safetensors

    def __call__(self, repository: str, **wanted: Any) -> list[SimpleNamespace]:
        if not self.files:
            raise LocalEntryNotFoundError("no connection\nand more")
        if not wanted.get("dry_run"):
            write(wanted["local_dir"], "config.json", {"model_type": "bert"})
            (wanted.pop("local_dir") / "model.safetensors").write_bytes(self._safetensors)
            self.asked.append({"repository": repository, **wanted})
        return [
            SimpleNamespace(filename=name, file_size=8, commit_hash="5a1") for name in self.files
        ]


@pytest.fixture
def snapshot(monkeypatch: pytest.MonkeyPatch, safetensors: bytes) -> Hub:
    hub = Hub(safetensors)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    return hub


def test_hub_that_cannot_be_reached_is_named(store: ModelStore, snapshot: Hub) -> None:
    with pytest.raises(
        WeightsUnavailable, match="'someone/model' .* the Hugging .*: no connection$"
    ):
        store.ensure("someone/model")


def test_repository_of_pickles_is_refused_before_the_download(
    store: ModelStore, snapshot: Hub
) -> None:
    snapshot.files = ("config.json", "pytorch_model.bin", "onnx/model.safetensors")
    with pytest.raises(LoadFailed, match="^model 'someone/model': pytorch_model.bin is not safete"):
        store.ensure("someone/model")
    assert snapshot.asked == []


def test_one_revision_and_only_the_needed_files_are_fetched(
    store: ModelStore, snapshot: Hub
) -> None:
    snapshot.files = ("config.json", "model.safetensors", "modeling.py", "onnx/model.safetensors")
    seen: list[tuple[str, int, int | None]] = []
    store.ensure("someone/model", lambda *step: seen.append(step))
    assert snapshot.asked == [
        {
            "repository": "someone/model",
            "revision": "5a1",
            "allow_patterns": ["config.json", "model.safetensors"],
        }
    ]
    assert ("download", 0, 16) in seen
