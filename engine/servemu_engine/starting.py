"""From a model's folder to a runner that is checked: from packed weights kept in a file where there
are any, else by way of transformers, which then are kept."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from servemu_engine import compiled_packing
from servemu_engine.compiled import CompiledRunner
from servemu_engine.compiled_cache import PackedFileBroken, read_packed, write_packed
from servemu_engine.compiled_files import packed_file
from servemu_engine.compiling import NotCompiled, compiled_library, panel_width, sources
from servemu_engine.loading import (
    ModelFacts,
    Placement,
    facts_of,
    load_model,
    load_tokenizer,
)
from servemu_engine.model_folder import check_folder
from servemu_engine.runners import CheckedRunner, RunnerOptions, checked_runner
from servemu_engine.vocabulary import Vocabulary

if TYPE_CHECKING:
    import ctypes

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Started:
    """A model that runs, and what is said about it."""

    runner: CheckedRunner
    runner_name: str
    facts: ModelFacts
    dtype: str
    """Of its weights: as of the placement, or int16."""
    num_bytes: int
    """Of its weights, in memory."""


def start_model(
    folder: Path, where: Placement, options: RunnerOptions
) -> tuple[Started, Vocabulary]:
    """Weights and tokenizer side by side. Raises `LoadFailed`."""
    check_folder(folder)
    with ThreadPoolExecutor(1, "tokenizer") as beside:
        vocabulary = beside.submit(lambda: Vocabulary(load_tokenizer(folder)))
        started = _start_weights(folder, where, options)
        return started, vocabulary.result()


def _start_weights(folder: Path, where: Placement, options: RunnerOptions) -> Started:
    library = _library(where, options)
    file = None if library is None else _file(folder, where, options, panel_width(library))
    kept = None if library is None or file is None else _start_kept(file, library, options)
    return kept or _start_anew(folder, where, options, file)


def _library(where: Placement, options: RunnerOptions) -> "ctypes.CDLL | None":
    if options.choice == "transformers" or where.device != "cpu":
        return None
    try:
        return compiled_library(options.compiled)
    except NotCompiled:
        return None  # said by those who go on without it


def _file(folder: Path, where: Placement, options: RunnerOptions, panel: int) -> Path | None:
    """Where its packed weights are kept; None: nowhere."""
    import transformers

    try:
        packing = Path(compiled_packing.__file__).read_text(encoding="utf-8")
        made_by = (*sources().values(), packing, str(panel), transformers.__version__)
        precision = options.precision or where.dtype
        return packed_file(folder, options.compiled, precision, made_by)
    except OSError:
        return None  # said by those who go on without it


def _start_kept(file: Path, library: "ctypes.CDLL", options: RunnerOptions) -> Started | None:
    try:
        packed, facts = read_packed(file, options.progress)
        runner = CompiledRunner(packed, library, options.num_threads)
        options.progress("try", 0, None)
        runner.check()
    except FileNotFoundError:
        return None
    except (OSError, PackedFileBroken, NotCompiled) as reason:
        _log.warning("packed weights are made again: %s", reason)
        return None
    return Started(runner, "compiled", facts, packed.sizes.precision, packed.num_bytes)


def _start_anew(
    folder: Path, where: Placement, options: RunnerOptions, file: Path | None
) -> Started:
    options.progress("import", 0, None)
    model = load_model(folder, where, options.progress)
    facts = facts_of(model)
    runner, name = checked_runner(model, options)
    if not isinstance(runner, CompiledRunner):
        from servemu_engine.packed import has_integers, held_bytes  # imported by its runner

        dtype = "int16" if has_integers(model) else where.dtype
        return Started(runner, name, facts, dtype, held_bytes(model))
    if file is not None:
        _keep(lambda: write_packed(file, (runner.packed, facts), folder, options.progress))
    packed = runner.packed
    return Started(runner, name, facts, packed.sizes.precision, packed.num_bytes)


def _keep(write: Callable[[], None]) -> None:
    try:
        write()
    except OSError as reason:
        _log.warning("packed weights are not kept, the next start packs them again: %s", reason)
