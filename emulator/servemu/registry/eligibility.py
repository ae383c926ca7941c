"""Whether an uploaded model can be served with provisioned throughput, and as which family.

Read from its MLmodel file and `model/config.json` (facts/uc_registry §3). The rule is a GUESS built
on what is documented (facts/provisioned_throughput §6).
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from servemu.catalog import Catalog, Family
from servemu.catalog.tables import Task

TASKS = ("llm/v1/chat", "llm/v1/completions", "llm/v1/embeddings")
OLDEST_MLFLOW = (2, 11)
"""DOC (seed page)."""

SIZES: Mapping[str, Sequence[tuple[str, float]]] = {
    "llama": (
        ("llama-1b", 2e9),
        ("llama-3b", 5e9),
        ("llama-8b", 20e9),
        ("llama-70b", 200e9),
        ("llama-405b", math.inf),
    ),
    "mistral": (("mistral-7b", math.inf),),
    "mixtral": (("mixtral-8x7b", math.inf),),
    "mpt": (("mpt-7b", math.inf),),
    "dbrx": (("dbrx", math.inf),),
}
"""`model_type` of a config → families by most parameters (GUESS)."""

ALIKE = {
    "qwen2": "qwen",
    "qwen3": "qwen",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3_text": "gemma",
    "gpt2": "gpt",
    "gpt_neox": "gpt",
    "gptj": "gpt",
    "opt": "gpt",
}
"""Causal models that the service has no table for: shown type → sized as Mistral 7B (GUESS)."""

MOST_TEXT = 4 << 20
"""Bytes of an MLmodel or config.json that are read; real ones have some thousands."""

ENCODERS = ("bert", "new", "roberta", "xlm-roberta", "modernbert", "distilbert", "mpnet")
EMBEDDING_FAMILIES = {"gte": "gte-large", "bge": "bge-large"}


@dataclass(frozen=True, slots=True)
class Ineligible(Exception):
    """Why the model cannot be served so, for people."""

    why: str


@dataclass(frozen=True, slots=True)
class Eligible:
    """What is served, and how it is sized."""

    task: Task
    family: Family


def examine(folder: Path, catalog: Catalog) -> Eligible:
    """What the uploaded folder of a version holds. Raises `Ineligible`."""
    described = _described(folder)
    task = task_of(described)
    _check_logged(described)
    config = _config(folder)
    family = _family(described, config, folder, catalog)
    if (family.dimensions is not None) != (task == "llm/v1/embeddings"):
        raise Ineligible(f"The task {task} does not fit the architecture {_architecture(config)}.")
    window = config.get("max_position_embeddings") or config.get("n_positions")
    if isinstance(window, int) and window > 0:
        family = replace(family, context_length=window)
    return Eligible(task, family)


def task_of(described: Mapping[str, Any]) -> Task:
    """`metadata.task`, else the flavour's, else by the first input. Raises `Ineligible`."""
    flavor = _mapping(described, "flavors").get("transformers")
    if not isinstance(flavor, dict):
        raise Ineligible("It was not logged with MLflow's transformers flavor.")
    metadata = _mapping(described, "metadata")
    task = metadata.get("task") or flavor.get("inference_task") or _task_by_input(described)
    if task not in TASKS:
        shown = _text(task or flavor.get("task"))
        raise Ineligible(f"Its task is {shown!r}: log it with task='llm/v1/chat' or another.")
    return cast(Task, task)


def _described(folder: Path) -> Mapping[str, Any]:
    import yaml  # late: only here, and not at every start

    try:
        described = yaml.safe_load(_read(folder / "MLmodel"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise Ineligible(f"Its MLmodel file cannot be read: {error}") from error
    if not isinstance(described, dict):
        raise Ineligible("Its MLmodel file is not a mapping.")
    return described


def _check_logged(described: Mapping[str, Any]) -> None:
    if not described.get("signature"):
        raise Ineligible("It has no signature.")
    version = _text(described.get("mlflow_version"))
    numbers = tuple(int(n) for n in re.findall(r"\d{1,9}", version)[:2])
    if numbers < OLDEST_MLFLOW:
        raise Ineligible(f"It was logged with MLflow {version or '?'}: 2.11 or newer is needed.")
    flavor = described["flavors"]["transformers"]
    if flavor.get("peft_adaptor"):
        raise Ineligible("It is a PEFT adapter that was not merged into its base model.")


def _config(folder: Path) -> Mapping[str, Any]:
    file = folder / "model" / "config.json"
    try:
        config = json.loads(_read(file))
    except (OSError, ValueError, RecursionError) as error:
        raise Ineligible(f"Its model/config.json cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise Ineligible("Its model/config.json is not an object.")
    if not any((folder / "model").glob("*.safetensors")):
        raise Ineligible("Its weights are not safetensors: pickled ones can run code.")
    return config


def _family(
    described: Mapping[str, Any], config: Mapping[str, Any], folder: Path, catalog: Catalog
) -> Family:
    metadata = _mapping(described, "metadata")
    named, kind = _text(metadata.get("model_type")).lower(), _text(config.get("model_type"))
    for prefix, name in EMBEDDING_FAMILIES.items():
        if named.startswith(prefix):
            family = catalog.families[name]
            size = config.get("hidden_size")
            return replace(family, dimensions=size if isinstance(size, int) else family.dimensions)
    if kind in SIZES:
        size = _num_parameters(metadata, config, folder)
        name = next(name for name, most in SIZES[kind] if size <= most)
        return catalog.families[name]
    if kind in ALIKE:
        return replace(catalog.families["mistral-7b"], model_type=ALIKE[kind])
    if kind in ENCODERS:
        raise Ineligible(
            "It is an encoder, but metadata={'model_type': …} names neither a GTE nor a BGE model."
        )
    raise Ineligible(f"The architecture {_architecture(config)} is not supported.")


def _num_parameters(metadata: Mapping[str, Any], config: Mapping[str, Any], folder: Path) -> float:
    """As the metadata says ("8b"), else by the size of the weights."""
    said = re.fullmatch(
        r"(\d+(?:\.\d+)?)b", _text(metadata.get("databricks_model_size_parameters")).lower()
    )
    if said is not None:
        return float(said[1]) * 1e9
    num_bytes = sum(file.stat().st_size for file in (folder / "model").glob("*.safetensors"))
    dtype = str(config.get("dtype") or config.get("torch_dtype"))
    return num_bytes / (4 if dtype == "float32" else 2)


def _task_by_input(described: Mapping[str, Any]) -> str | None:
    inputs = _mapping(described, "signature").get("inputs")
    try:
        first = _text(json.loads(inputs)[0].get("name")) if inputs else None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    kinds = {"messages": "chat", "prompt": "completions", "input": "embeddings"}
    return f"llm/v1/{kinds[first]}" if first in kinds else None


def _architecture(config: Mapping[str, Any]) -> str:
    architectures = config.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else None
    return _text(named or config.get("model_type")) or "?"


def _read(file: Path) -> str:
    """Raises `OSError`, `ValueError`."""
    if file.stat().st_size > MOST_TEXT:
        raise ValueError(f"it is larger than {MOST_TEXT} bytes")
    return file.read_text(encoding="utf-8")


def _mapping(given: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """What somebody uploaded may be anything."""
    found = given.get(key)
    return found if isinstance(found, dict) else {}


def _text(given: object) -> str:
    """Short, and of texts and numbers only: YAML's aliases can make a small file endless."""
    return str(given)[:200] if isinstance(given, str | int | float) else ""
