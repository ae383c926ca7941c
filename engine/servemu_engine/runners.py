"""Which runner a model gets: the compiled step if it can be had and is right, or transformers'.

Not used, because measured: torch.compile of transformers' layers (no faster than this machine's
noise, and seconds of each load); OpenVINO (its step can be as fast as the float32 one, but not as
the int16 one, its int8 weights lose likeliest tokens, and it takes a conversion and 200 MB).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from servemu_engine.compiled import CompiledRunner
from servemu_engine.compiled_packing import Precision, pack
from servemu_engine.compiling import NotCompiled, compiled_library, panel_width
from servemu_engine.loop import StepRunner
from servemu_engine.weight_sources import Progress, no_progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

RunnerChoice = Literal["auto", "transformers", "compiled"]
_log = logging.getLogger(__name__)


class CheckedRunner(StepRunner, Protocol):
    """A runner whose `check` is behind it."""

    @property
    def num_bytes_per_token(self) -> int: ...

    @property
    def kv_layers(self) -> Mapping[str, int]:
        """How many layers have their keys and values on each device."""

    def step_bytes(self, num_tokens: int, num_rows: int) -> int:
        """Memory that a step takes beside weights, keys and values; an estimate from above."""


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """`choice` "auto": compiled, and where that fails transformers, with one line in the log.

    `compiled`: the folder of compiled libraries. `precision`: of the weights of the compiled step;
    None: the model's. `cuda_graphs`: on one GPU, decoding steps are captured and replayed.
    `progress`: told how far the load is.
    """

    choice: RunnerChoice
    compiled: Path
    num_threads: int | None = None
    precision: Precision | None = None
    cuda_graphs: bool = True
    progress: Progress = no_progress


def checked_runner(model: "PreTrainedModel", options: RunnerOptions) -> tuple[CheckedRunner, str]:
    """The runner and its name, transformers or compiled. Raises `LoadFailed`; with the choice
    "compiled" also where there is no compiled step for the model."""
    if options.choice != "transformers":
        try:
            return _compiled_runner(model, options), "compiled"
        except NotCompiled as reason:
            if options.choice == "compiled":
                raise
            _log.warning("%s runs without the compiled step: %s", model.name_or_path, reason)
    return _transformers_runner(model, options), "transformers"


def _compiled_runner(model: "PreTrainedModel", options: RunnerOptions) -> CompiledRunner:
    library = compiled_library(options.compiled)
    packed = pack(model, panel_width(library), options.precision, options.progress)
    runner = CompiledRunner(packed, library, options.num_threads)
    options.progress("try", 0, None)
    runner.check()
    return runner


def _transformers_runner(model: "PreTrainedModel", options: RunnerOptions) -> CheckedRunner:
    """Its modules take seconds to import: they are for those who need it."""
    from servemu_engine.compiled_attention import use_compiled_attention
    from servemu_engine.compiled_norm import compile_norms
    from servemu_engine.graphs import cuda_captures
    from servemu_engine.packed import pack_linears, packing
    from servemu_engine.runner import Runner

    if model.device.type == "cpu":
        pack = packing(options.compiled, options.precision)
        pack_linears(model, pack, options.progress)
        use_compiled_attention(options.compiled)
        compile_norms(model, options.compiled)
    is_on_one_gpu = {p.device for p in model.parameters()} == {model.device} and (
        model.device.type == "cuda"
    )
    captures = cuda_captures(model.device) if is_on_one_gpu and options.cuda_graphs else None
    runner = Runner(model, options.num_threads, captures)
    options.progress("try", 0, None)
    runner.check()
    return runner
