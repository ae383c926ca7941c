"""What a load tells of how far it is."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from servemu_engine.compiled_files import FOLDER
from servemu_engine.local import LocalEngine, LocalOptions
from servemu_engine.runners import RunnerChoice

Make = Callable[..., Path]
Step = tuple[str, int, int | None]


@pytest.fixture
def load(byte_llama: Make, compiled_libraries: Path, tmp_path: Path) -> Callable[..., list[Step]]:
    """Loads a model of three layers, again each time; what was told."""
    folder = byte_llama("told", num_hidden_layers=3)
    compiled = tmp_path / FOLDER
    compiled.mkdir()

    def load(runner: RunnerChoice) -> list[Step]:
        for library in compiled_libraries.glob("*.so"):
            if not (compiled / library.name).exists():
                (compiled / library.name).hardlink_to(library)
        told: list[Step] = []
        options = LocalOptions(
            "float32",
            "cpu",
            kv_bytes=1 << 20,
            runner=runner,
            compiled=compiled,
            progress=lambda *step: told.append(step),
        )
        engine = LocalEngine(folder, "told", options)
        engine.start()
        engine.close()
        return told

    return load


def phases(told: list[Step]) -> list[str]:
    return [phase for phase, _ in itertools.groupby(phase for phase, _, _ in told)]


def of(phase: str, told: list[Step]) -> list[tuple[int, int | None]]:
    return [(done, total) for one, done, total in told if one == phase]


def test_first_load_tells_tensors_read_numbers_packed_and_bytes_kept(
    load: Callable[..., list[Step]],
) -> None:
    told = load("compiled")
    assert phases(told) == ["import", "read", "pack", "try", "keep"]
    tensors = len(of("read", told)) - 1
    assert of("read", told) == [(done, tensors) for done in range(tensors + 1)]
    assert tensors > 3 * 9
    layer = 32 * 32 + 2 * 16 * 32 + 32 * 32 + 3 * 32 * 64 + 2 * 32
    assert of("pack", told) == [(done * layer, 3 * layer + 32 * 257) for done in (1, 2, 3)]
    kept = of("keep", told)
    assert kept == sorted(kept)
    assert (kept[0][0], len({total for _, total in kept})) == (0, 1)


def test_load_of_packed_weights_tells_that_they_are_mapped(
    load: Callable[..., list[Step]],
) -> None:
    load("compiled")
    assert phases(load("compiled")) == ["map", "try"]


def test_load_for_transformers_tells_modules_packed(load: Callable[..., list[Step]]) -> None:
    told = load("transformers")
    assert phases(told) == ["import", "read", "pack", "try"]
    packed = of("pack", told)
    assert packed == [(done, len(packed)) for done in range(len(packed))]
