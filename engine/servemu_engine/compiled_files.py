"""Which files hold packed models, and what each is good for. Imports no torch."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

FOLDER = ".compiled"
"""Beside the models."""
_SUFFIX = ".safetensors"
_ELSEWHERE = "@"
"""In no name of a model in the store."""
_SAMPLES = 64
_SAMPLE = 4096


def packed_file(model: Path, compiled: Path, precision: str, made_by: Sequence[str]) -> Path:
    """Of a model's folder in the folder `compiled`; `made_by`: all else that decides what is in it.

    Its name changes with the configs, with name, size, time and samples of the weights, and with
    `made_by`. Raises `OSError`.
    """
    key = hashlib.sha256("\0".join([precision, *made_by]).encode())
    for file in _what_it_is_of(model):
        stat = file.stat()
        key.update(f"\0{file.name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
        if file.suffix == ".json":
            key.update(file.read_bytes())
        else:
            key.update(_sample(file, stat.st_size))
    return compiled / f"{_name(model, compiled)}-{precision}-{key.hexdigest()[:16]}{_SUFFIX}"


def outdated(file: Path) -> list[Path]:
    """Those of the same model and precision under another name."""
    stem = file.stem.rpartition("-")[0]
    there = file.parent.glob(f"*{_SUFFIX}")
    return [other for other in there if other != file and other.stem.rpartition("-")[0] == stem]


def from_elsewhere(compiled: Path) -> Iterator[Path]:
    """Those of folders that are not in the store."""
    return compiled.glob(f"*{_ELSEWHERE}*{_SUFFIX}")


def forget(name: str, models: Path) -> None:
    """Delete all of the model in the folder `name` of `models`."""
    for file in (models / FOLDER).glob(f"*{_SUFFIX}"):
        if file.stem.rsplit("-", 2)[0] == name:
            file.unlink(missing_ok=True)


def _name(model: Path, compiled: Path) -> str:
    """A folder from elsewhere is told from a model of the store by its path."""
    place = model.parent.resolve() / model.name
    if place.parent == compiled.resolve().parent:
        return place.name
    return f"{place.name}{_ELSEWHERE}{hashlib.sha256(bytes(place)).hexdigest()[:8]}"


def _what_it_is_of(model: Path) -> Iterator[Path]:
    for name in ("config.json", "generation_config.json"):
        if (model / name).is_file():
            yield model / name
    yield from sorted(model.glob("*.safetensors"))
    yield from sorted(model.glob("*.safetensors.index.json"))


def _sample(file: Path, size: int) -> bytes:
    """Some of it: two files may have one size and, from an image or an archive, one time."""
    with file.open("rb") as opened:
        taken = []
        for number in range(_SAMPLES):
            opened.seek(max(0, size - _SAMPLE) * number // (_SAMPLES - 1))
            taken.append(opened.read(_SAMPLE))
    return b"".join(taken)
