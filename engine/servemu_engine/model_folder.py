"""What a model's folder must be to be loaded: safetensors, whole JSON, no code of its own."""

import json
import shutil
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from servemu_engine.errors import LoadFailed
from servemu_engine.weight_sources import Progress, is_needed

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
_BLOCK = 16 << 20


def check_folder(folder: Path, name: str | None = None) -> None:
    """Refuse what cannot be loaded or is not to be trusted. Raises `LoadFailed` with the reason.

    `name` is what messages call it; None: the folder's own name.
    """
    name = name or folder.name
    if not folder.is_dir():
        raise LoadFailed(f"model {name!r}: there is no folder {folder}")
    if not (folder / "config.json").is_file():
        raise LoadFailed(f"model {name!r}: {folder} has no config.json")
    config = read_json(folder, "config.json", name)
    check_weights(name, sorted(path.name for path in folder.iterdir()))
    _check_code(name, config)


def check_weights(name: str, files: Iterable[str]) -> None:
    """There must be safetensors at the top. Raises `LoadFailed`, for a pickle by its name."""
    top = [file for file in files if "/" not in file]
    if any(fnmatch(file, "*.safetensors") for file in top):
        return
    for pattern in _PICKLES:
        for file in top:
            if fnmatch(file, pattern):
                raise LoadFailed(
                    f"model {name!r}: {file} is not safetensors; "
                    "pickled weights can run code and are not loaded"
                )
    raise LoadFailed(f"model {name!r} has no *.safetensors file")


def read_json(folder: Path, file: str, name: str | None = None) -> Any:
    """Raises `LoadFailed` when it is no JSON."""
    try:
        return json.loads((folder / file).read_text(encoding="utf-8"))
    except ValueError as error:
        reason = f"{file} is not valid JSON: {error}"
        raise LoadFailed(f"model {name or folder.name!r}: {reason}") from error


def copy_model(folder: Path, target: Path, progress: Progress) -> None:
    """Copy what a model needs out of `folder`, following links. Raises `LoadFailed`, `OSError`."""
    check_folder(folder)
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    inner = [path.relative_to(folder) for path in found]
    wanted = [path for path in inner if is_needed(path.as_posix())]
    total = sum((folder / path).stat().st_size for path in wanted)
    done = 0
    for path in wanted:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        with (folder / path).open("rb") as source, (target / path).open("wb") as copy:
            while block := source.read(_BLOCK):
                copy.write(block)
                done += len(block)
                progress("copy", done, total)
        shutil.copymode(folder / path, target / path)


def architecture_of(folder: Path) -> str:
    """The class that `config.json` names, else its `model_type`. Raises `LoadFailed`."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return str((config.get("architectures") or [config["model_type"]])[0])
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise LoadFailed(
            f"config.json of the fetched model is missing or broken: {error}"
        ) from error


def is_generator(architecture: str) -> bool:
    """Whether the class of a config generates text; else it encodes."""
    return any(part in architecture for part in ("ForCausalLM", "LMHead", "ForConditionalGen"))


def _check_code(name: str, config: Any) -> None:
    """`auto_map` points at Python files of the model. It is harmless where transformers has the
    architecture itself: `trust_remote_code` is False, so its own class is taken.
    """
    if not isinstance(config, dict) or not config.get("auto_map"):
        return
    from transformers import CONFIG_MAPPING

    if config.get("model_type") in CONFIG_MAPPING:
        return
    files = config["auto_map"].values() if isinstance(config["auto_map"], dict) else ()
    code = next((file for file in files if isinstance(file, str)), "auto_map")
    raise LoadFailed(
        f"model {name!r} brings code of its own ({code}) for the architecture "
        f"{config.get('model_type')!r}, which transformers does not have; "
        "code that comes with a model is not run"
    )
