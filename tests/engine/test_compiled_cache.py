"""Packed weights in files: read at later starts, made again whenever they are not the model's."""

import json
import logging
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedModel

from servemu_engine import starting
from servemu_engine.compiled import CompiledRunner
from servemu_engine.compiled_cache import PackedFileBroken, read_packed, write_packed
from servemu_engine.compiled_files import forget, outdated, packed_file
from servemu_engine.compiled_packing import Precision
from servemu_engine.compiling import compiled_library
from servemu_engine.errors import LoadFailed
from servemu_engine.loading import Placement, load_model, load_tokenizer
from servemu_engine.runners import RunnerOptions
from servemu_engine.slots import Reshape
from servemu_engine.starting import Started, start_model
from servemu_engine.step_rows import Segment
from servemu_engine.weight_sources import Progress

Make = Callable[..., Path]
Start = Callable[[], Started]
SHAPE = {"num_hidden_layers": 2, "hidden_size": 64, "initializer_range": 0.3}


@pytest.fixture
def folder(byte_llama: Make, tmp_path: Path) -> Path:
    """A model of a store."""
    made = byte_llama("packed", **SHAPE)
    (tmp_path / "store").mkdir()
    return Path(shutil.move(made, tmp_path / "store" / "tiny"))


@pytest.fixture
def compiled(folder: Path, compiled_libraries: Path) -> Path:
    """With the library in it."""
    others = shutil.ignore_patterns("*.safetensors")  # of models of other tests
    return Path(shutil.copytree(compiled_libraries, folder.parent / ".compiled", ignore=others))


@pytest.fixture(scope="module", autouse=True)
def library(compiled_libraries: Path) -> None:
    """Compiled before it is copied."""
    compiled_library(compiled_libraries)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders that transformers have loaded."""
    seen: list[Path] = []

    def load(folder: Path, where: Placement, progress: Progress) -> PreTrainedModel:
        seen.append(folder)
        return load_model(folder, where, progress)

    monkeypatch.setattr(starting, "load_model", load)
    return seen


@pytest.fixture
def start(folder: Path, compiled: Path, loads: list[Path]) -> Start:
    return lambda: started(folder, compiled)


def started(folder: Path, compiled: Path, precision: Precision | None = None) -> Started:
    dtype = "bfloat16" if precision == "bfloat16" else "float32"
    options = RunnerOptions("compiled", compiled, 1, None if precision == dtype else precision)
    return start_model(folder, Placement(dtype, "cpu"), options)[0]


@torch.inference_mode()
def logits(started: Started) -> torch.Tensor:
    runner = started.runner
    assert isinstance(runner, CompiledRunner)
    runner._reshape(Reshape(1, 64, ()))
    return runner._forward(list(range(40)), [Segment(0, 1, 0, 0), Segment(1, 40, 0, 1)])


def files(compiled: Path) -> list[Path]:
    return [path for path in compiled.iterdir() if path.suffix != ".so"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int16"])
def test_later_start_is_the_first_one_without_transformers(
    precision: Precision, folder: Path, compiled: Path, loads: list[Path]
) -> None:
    first = started(folder, compiled, precision)
    [file] = files(compiled)
    assert file.stem.startswith(f"tiny-{precision}-")
    assert file.stat().st_mode == (folder / "config.json").stat().st_mode
    later = started(folder, compiled, precision)
    assert loads == [folder]
    assert replace(later, runner=first.runner) == first
    assert torch.equal(logits(later), logits(first))
    assert (later.runner_name, later.dtype) == ("compiled", precision)


def test_other_precision_has_a_file_of_its_own(folder: Path, compiled: Path) -> None:
    started(folder, compiled)
    started(folder, compiled, "int16")
    assert len(files(compiled)) == 2


def change_weights(folder: Path) -> None:
    """One number, in place; the time as before."""
    file = folder / "model.safetensors"
    stat, content = file.stat(), bytearray(file.read_bytes())
    content[-2] ^= 0x40
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def touch_weights(folder: Path) -> None:
    os.utime(folder / "model.safetensors", ns=(1, 1))


def change_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))


def add_end(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 5]}')


@pytest.mark.parametrize("change", [change_weights, touch_weights, change_config, add_end])
def test_changed_model_is_packed_again_and_the_old_file_goes(
    change: Callable[[Path], None], folder: Path, compiled: Path, start: Start, loads: list[Path]
) -> None:
    start()
    before = files(compiled)
    change(folder)
    again = start()
    assert loads == [folder, folder]
    assert len(files(compiled)) == 1 and files(compiled) != before
    assert (5 in again.facts.end_ids) is (change is add_end)


def test_other_kernel_does_not_read_what_this_one_packed(
    start: Start, loads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    start()
    monkeypatch.setattr(starting, "sources", lambda: {"step.c": "/* another layout */"})
    start()
    assert len(loads) == 2


def truncate(content: bytearray) -> bytes:
    return bytes(content[:-5])


def lengthen(content: bytearray) -> bytes:
    return bytes(content + b"12345678")


def flip_weight(content: bytearray) -> bytes:
    content[-3000] ^= 1
    return bytes(content)


def break_header(content: bytearray) -> bytes:
    content[9] = 0
    return bytes(content)


def stretch_header(content: bytearray) -> bytes:
    return struct.pack("<Q", 1 << 60) + bytes(content[8:])


def empty(content: bytearray) -> bytes:
    return b""


BREAKS = [truncate, lengthen, flip_weight, break_header, stretch_header, empty]


@pytest.mark.parametrize("damage", BREAKS)
def test_broken_file_is_made_again(
    damage: Callable[[bytearray], bytes],
    compiled: Path,
    start: Start,
    loads: list[Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = logits(start())
    [file] = files(compiled)
    whole = bytearray(file.read_bytes())
    file.unlink()  # a process may have it mapped
    file.write_bytes(damage(bytearray(whole)))
    with caplog.at_level(logging.WARNING):
        assert torch.equal(logits(start()), expected)
    assert "packed weights are made again" in caplog.text
    assert (len(loads), file.read_bytes()) == (2, bytes(whole))


def test_wrong_numbers_in_a_whole_file_are_found_by_the_check(
    folder: Path, compiled: Path, start: Start, loads: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    expected = logits(start())
    [file] = files(compiled)
    packed, facts = read_packed(file)
    packed.tensors["1.down"][0, 3] += 2.0
    write_packed(file, (packed, facts), folder)
    assert torch.equal(logits(start()), expected)
    assert "other logits than those of LlamaForCausalLM" in caplog.text
    assert len(loads) == 2


def full(*_: object) -> SimpleNamespace:
    return SimpleNamespace(free=1000)


def read_only(*_: object, **__: object) -> None:
    raise OSError(30, "Read-only file system")


def fails_at_the_end(self: Path, target: Path) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("name", "failure"),
    [
        ("shutil.disk_usage", full),
        ("servemu_engine.compiled_cache.NamedTemporaryFile", read_only),
        ("pathlib.Path.replace", fails_at_the_end),
    ],
)
def test_where_nothing_can_be_kept_it_runs_all_the_same(
    name: str,
    failure: object,
    compiled: Path,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(name, failure)
    assert start().runner_name == "compiled"
    assert "packed weights are not kept" in caplog.text
    assert files(compiled) == []


def test_two_at_once_leave_one_whole_file(compiled: Path, start: Start) -> None:
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: start(), range(2))
    assert torch.equal(logits(one), logits(two))
    [file] = files(compiled)
    assert read_packed(file)[1] == one.facts


def test_pickle_and_code_are_refused_whatever_was_packed(folder: Path, start: Start) -> None:
    start()
    config = json.loads((folder / "config.json").read_text())
    code = {"auto_map": {"AutoModel": "code.Model"}, "model_type": "unheard-of"}
    (folder / "config.json").write_text(json.dumps(config | code))
    with pytest.raises(LoadFailed, match="code that comes with a model is not run"):
        start()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(LoadFailed, match="pickled weights can run code and are not loaded"):
        start()


def test_model_that_is_removed_takes_its_packed_weights_along(
    folder: Path, compiled: Path, start: Start
) -> None:
    start()
    [file] = files(compiled)
    other = file.with_name(file.name.replace("tiny-", "tiny-er-"))
    other.write_bytes(b"of another model")
    forget("tiny", folder.parent)
    assert files(compiled) == [other]


def test_folder_elsewhere_is_told_by_its_path_and_forgotten_once_it_is_gone(
    folder: Path, compiled: Path, tmp_path: Path, start: Start
) -> None:
    upload = Path(shutil.copytree(folder, tmp_path / "uploads" / "tiny"))
    started(upload, compiled)
    [file] = files(compiled)
    assert file.name.startswith("tiny@")
    start()
    assert file in files(compiled)
    shutil.rmtree(upload)
    touch_weights(folder)
    start()
    assert [path.name.startswith("tiny-float32-") for path in files(compiled)] == [True]


def test_names_that_begin_alike_are_different_models(folder: Path, tmp_path: Path) -> None:
    one = packed_file(folder, folder.parent / ".compiled", "float32", ("a",))
    two = packed_file(folder, folder.parent / ".compiled", "float32", ("b",))
    one.parent.mkdir()
    for name in (one.name, two.name, one.name.replace("tiny-", "tiny-float32-")):
        (one.parent / name).touch()
    assert outdated(one) == [two]


def test_what_is_no_packed_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    with pytest.raises(PackedFileBroken, match=r"^x.safetensors is broken: '__metadata__'$"):
        read_packed(tmp_path / "x.safetensors")


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3", "mistral"])
@pytest.mark.parametrize("declared", ["TokenizersBackend", "PreTrainedTokenizerFast", None])
def test_tokenizer_is_that_of_autotokenizer(
    model_type: str, declared: str | None, folder: Path
) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": model_type}))
    told = json.loads((folder / "tokenizer_config.json").read_text())
    told = {**told, "tokenizer_class": declared, "model_max_length": 50}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({name: value for name, value in told.items() if value is not None})
    )
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    ours, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    assert type(ours) is type(theirs)
    text = "héllo <|end|> wörld"
    assert (ours(text).data, ours.chat_template) == (theirs(text).data, theirs.chat_template)
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    assert ours.model_max_length == theirs.model_max_length == 50


def test_later_start_imports_no_modeling_code(start: Start, folder: Path) -> None:
    """It takes longer than the load itself."""
    start()
    code = (
        "import sys, pathlib\n"
        "from servemu_engine.local import LocalEngine, LocalOptions\n"
        "engine = LocalEngine(pathlib.Path(sys.argv[1]), 'x', LocalOptions(device='cpu'))\n"
        "engine.start()\n"
        "engine.close()\n"
        "heavy = ['transformers.modeling_utils', 'transformers.generation', 'accelerate']\n"
        "print(engine.info.runner, [name for name in heavy if name in sys.modules])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "compiled []\n"
