"""A local folder onto a device: the only file that calls `from_pretrained`."""

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from servemu_engine.devices import choose_devices, free_on_gpus, max_memory_of
from servemu_engine.errors import LoadFailed
from servemu_engine.model_folder import check_folder, read_json
from servemu_engine.tokenizer_folder import tells_all
from servemu_engine.weight_sizes import memory_of
from servemu_engine.weight_sources import Progress, no_progress

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

T = TypeVar("T")
_DTYPES = ("float32", "bfloat16", "float16", "int16")
_UNBOUNDED = 10**9
"""Tokenizers without a limit of their own say `model_max_length` = 10**30."""

_verbosity_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a text generator's weights and configs say about it."""

    architecture: str
    vocab_size: int
    positions: int | None
    """Most tokens, as the config says; None: it does not."""
    num_parameters: int
    """Tied weights counted once."""
    end_ids: tuple[int, ...]
    """Tokens that end an answer, by config and generation config."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in evaluation mode on its device, with its tokenizer."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    dtype: str
    """float32, bfloat16 or float16."""
    device: str
    """cpu, cuda:0, …; of several that of its inputs."""
    context_length: int
    """Most tokens that positions and tokenizer allow."""
    num_parameters: int
    """Tied weights counted once."""
    num_bytes: int
    """Parameters and buffers on the device."""


def load_causal_lm(folder: Path, *, dtype: str = "auto", device: str = "auto") -> LoadedModel:
    """Load a text generator from a safetensors folder. Raises `LoadFailed`.

    `dtype` "auto" is float32 on CPU, bfloat16 on CUDA; `device` "auto" is cuda if there is one.
    """
    check_folder(folder)
    from transformers import AutoModelForCausalLM

    return _load(folder, AutoModelForCausalLM, placement(folder, dtype, device))


def load_encoder(
    folder: Path,
    *,
    dtype: str = "auto",
    device: str = "auto",
    progress: Progress = no_progress,
) -> LoadedModel:
    """Load a text encoder (no head) from a safetensors folder. Raises `LoadFailed`.

    `dtype` and `device` as in `load_causal_lm`. A pooler the weights lack is left untrained: the
    hidden states are pooled outside of the model.
    """
    check_folder(folder)
    from transformers import AutoModel

    return _load(folder, AutoModel, placement(folder, dtype, device), progress)


def convert_gguf(file: Path, folder: Path) -> None:
    """Unpack a quantised GGUF file into a safetensors folder of float32. Raises `LoadFailed`.

    Slow (26 s for 135M parameters: facts/engine "Load time"), so done once, by `gguf_conversion`.
    float32 keeps the dequantised values exactly; bfloat16 would halve the file, load no faster
    (both are mapped, not read) and round each value by up to 0.2 %.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with _silent_transformers():
            source = {"gguf_file": file.name, "local_files_only": True}
            tokenizer = AutoTokenizer.from_pretrained(file.parent, **source)
            from_file = {"dtype": torch.float32, "gguf_file": file.name}
            model = _read_model(file.parent, AutoModelForCausalLM, **from_file)
            # What is left of the quantisation would make the folder ask for the GGUF file again.
            del model.config.quantization_config
            model.hf_quantizer = None
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        for weights in folder.glob("*.safetensors"):  # written for the owner only
            weights.chmod((folder / "config.json").stat().st_mode)
    except (LoadFailed, ImportError):
        raise
    except Exception as error:  # the same open-ended border as in `_load`
        raise LoadFailed(f"{file.name} cannot be converted: {error}") from error


@dataclass(frozen=True, slots=True)
class Placement:
    """`dtype` as of `LoadedModel`; `device` too, or several with commas between."""

    dtype: str
    device: str


def placement(folder: Path, dtype: str, device: str) -> Placement:
    """What "auto" means here. Raises `LoadFailed`."""
    gpus = [] if device == "cpu" else free_on_gpus()
    size = memory_of(folder, "bfloat16" if dtype == "auto" else dtype)
    device = ",".join(choose_devices(device, size, gpus))
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    if dtype not in _DTYPES:
        raise LoadFailed(f"model {folder.name!r}: dtype {dtype!r} is not one of {list(_DTYPES)}")
    # Integers are what the compiled step makes of a model; transformers' own are float32.
    return Placement("float32" if dtype == "int16" else dtype, device)


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Raises `LoadFailed`."""
    with _border(folder), _silent_transformers():
        return _read_tokenizer(folder)


def load_model(
    folder: Path, where: Placement, progress: Progress = no_progress
) -> "PreTrainedModel":
    """A text generator in evaluation mode, from a folder that was checked. Raises `LoadFailed`."""
    from transformers import AutoModelForCausalLM

    return _load_model(folder, AutoModelForCausalLM, where, progress)


def facts_of(model: "PreTrainedModel") -> ModelFacts:
    """Of a text generator."""
    config = model.config.get_text_config()
    ids: set[int] = set()
    for named_by in (model.config, config, model.generation_config):
        value = getattr(named_by, "eos_token_id", None)
        if value is not None:
            ids.update(value if isinstance(value, list | tuple) else [value])
    return ModelFacts(
        type(model).__name__,
        config.vocab_size,
        _positions(model),
        sum(p.numel() for p in model.parameters()),
        tuple(sorted(ids)),
    )


def context_length(positions: int | None, tokenizer: "PreTrainedTokenizerBase") -> int:
    """Most tokens that positions and tokenizer allow."""
    limits = [positions, tokenizer.model_max_length]
    known = [int(limit) for limit in limits if limit is not None and 0 < limit < _UNBOUNDED]
    return min(known, default=2048)


def num_bytes(model: "torch.nn.Module") -> int:
    """Of parameters and buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors)


def _load(
    folder: Path, auto_class: type, where: Placement, progress: Progress = no_progress
) -> LoadedModel:
    tokenizer = load_tokenizer(folder)
    model = _load_model(folder, auto_class, where, progress)
    return LoadedModel(
        model,
        tokenizer,
        where.dtype,
        str(model.device),
        context_length(_positions(model), tokenizer),
        sum(p.numel() for p in model.parameters()),
        num_bytes(model),
    )


def _load_model(
    folder: Path, auto_class: type, where: Placement, progress: Progress = no_progress
) -> "PreTrainedModel":
    import torch

    try:
        with _border(folder), _silent_transformers(), _tensors_told(progress):
            dtype = getattr(torch, where.dtype)
            if "," in where.device:
                model = _read_model(folder, auto_class, dtype=dtype, **_spread())
            else:
                model = _read_model(folder, auto_class, dtype=dtype).to(where.device)
            model.eval().requires_grad_(False)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise LoadFailed(
            f"model {folder.name!r} does not fit into the memory of {where.device} "
            f"as {where.dtype}: {error}"
        ) from error
    return model


@contextmanager
def _border(folder: Path) -> Iterator[None]:
    import torch

    try:
        yield
    except (LoadFailed, MemoryError, torch.OutOfMemoryError):
        raise
    # A border like the engine loop: what a foreign config or tokenizer file makes the libraries
    # raise is open-ended (`tokenizers` raises a bare Exception for a broken file).
    except Exception as error:
        reason = str(error).strip() or type(error).__name__
        if "trust_remote_code" in reason:
            reason = "it wants to run code of its own, which is never done"
        raise LoadFailed(f"model {folder.name!r} cannot be loaded: {reason}") from error


def _read_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    files = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.txt")
    if not any((folder / name).is_file() for name in files):
        raise LoadFailed(f"model {folder.name!r}: {folder} has no tokenizer.json")
    if tells_all(folder):
        from transformers import PreTrainedTokenizerFast as TokenizerClass
    else:
        from transformers import AutoTokenizer as TokenizerClass
    try:
        return TokenizerClass.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception:  # passed on: of a broken file `tokenizers` says neither name nor place
        if (folder / "tokenizer.json").is_file():
            read_json(folder, "tokenizer.json")
        raise


def _spread() -> dict[str, object]:
    """Layers over all GPUs, by accelerate, which takes a second to import: only then."""
    return {"device_map": "balanced", "max_memory": max_memory_of(free_on_gpus())}


def _read_model(folder: Path, auto_class: type, **chosen: object) -> "PreTrainedModel":
    """`chosen`: the options of `from_pretrained` that are not the same for all."""
    model, report = auto_class.from_pretrained(  # type: ignore[attr-defined]
        folder,
        **chosen,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
    )
    # Without this, transformers fills what is missing with random numbers and only warns.
    missing = sorted(k for k in report["missing_keys"] if not k.startswith("pooler."))
    if missing:
        raise LoadFailed(
            f"model {folder.name!r}: the safetensors lack {len(missing)} of the tensors that "
            f"{type(model).__name__} needs, first {missing[0]!r}"
        )
    return model


@contextmanager
def _tensors_told(progress: Progress) -> Iterator[None]:
    """How many tensors of the model that this thread loads were read: transformers counts them with
    bars, and lets others make those. Within `_silent_transformers`: one at a time."""
    from transformers.utils import logging

    loading = threading.get_ident()

    def bar(make: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> object:
        if threading.get_ident() != loading or options.get("desc") != "Loading weights":
            return make(*args, **options)
        return _counted(args[0], progress)

    before = logging.set_tqdm_hook(bar)
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)


def _counted(items: Collection[T], progress: Progress) -> Iterator[T]:
    for done, item in enumerate(items):
        progress("read", done, len(items))
        yield item
    progress("read", len(items), len(items))


def _positions(model: "PreTrainedModel") -> int | None:
    config = model.config.get_text_config()
    limits = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions")]
    known = [int(limit) for limit in limits if limit is not None and 0 < limit < _UNBOUNDED]
    return min(known, default=None)


@contextmanager
def _silent_transformers() -> Iterator[None]:
    """No log lines and no progress bars; what was set before is put back."""
    from transformers.utils import logging

    with _verbosity_lock:
        verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity(logging.CRITICAL)
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()
