"""A local folder onto a device: the only file that calls `from_pretrained`."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from servemu_engine.errors import LoadFailed
from servemu_engine.model_folder import check_folder, read_json

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_DTYPES = ("float32", "bfloat16", "float16", "int16")
_UNBOUNDED = 10**9
"""Tokenizers without a limit of their own say `model_max_length` = 10**30."""

_verbosity_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in evaluation mode on its device, with its tokenizer."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    dtype: str
    """float32, bfloat16 or float16."""
    device: str
    """cpu, cuda, cuda:1, …"""
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

    return _load(folder, AutoModelForCausalLM, _placement(folder, dtype, device))


def load_encoder(folder: Path, *, dtype: str = "auto", device: str = "auto") -> LoadedModel:
    """Load a text encoder (no head) from a safetensors folder. Raises `LoadFailed`.

    `dtype` and `device` as in `load_causal_lm`. A pooler the weights lack is left untrained: the
    hidden states are pooled outside of the model.
    """
    check_folder(folder)
    from transformers import AutoModel

    return _load(folder, AutoModel, _placement(folder, dtype, device))


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
            model = _read_model(file.parent, AutoModelForCausalLM, torch.float32, file.name)
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
class _Placement:
    dtype: str
    device: str


def _placement(folder: Path, dtype: str, device: str) -> _Placement:
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    if dtype not in _DTYPES:
        raise LoadFailed(f"model {folder.name!r}: dtype {dtype!r} is not one of {list(_DTYPES)}")
    # Integers are what the compiled step makes of a model; transformers' own are float32.
    return _Placement("float32" if dtype == "int16" else dtype, device)


def _load(folder: Path, auto_class: type, placement: _Placement) -> LoadedModel:
    import torch

    try:
        with _silent_transformers():
            tokenizer = _read_tokenizer(folder)
            model = _read_model(folder, auto_class, getattr(torch, placement.dtype))
        model.eval().requires_grad_(False).to(placement.device)
    except LoadFailed:
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise LoadFailed(
            f"model {folder.name!r} does not fit into the memory of {placement.device} "
            f"as {placement.dtype}: {error}"
        ) from error
    # A border like the engine loop: what a foreign config or tokenizer file makes the libraries
    # raise is open-ended (`tokenizers` raises a bare Exception for a broken file).
    except Exception as error:
        reason = str(error).strip() or type(error).__name__
        if "trust_remote_code" in reason:
            reason = "it wants to run code of its own, which is never done"
        raise LoadFailed(f"model {folder.name!r} cannot be loaded: {reason}") from error
    return LoadedModel(
        model,
        tokenizer,
        placement.dtype,
        placement.device,
        _context_length(model, tokenizer),
        sum(p.numel() for p in model.parameters()),
        _num_bytes(model),
    )


def _read_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    files = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.txt")
    if not any((folder / name).is_file() for name in files):
        raise LoadFailed(f"model {folder.name!r}: {folder} has no tokenizer.json")
    if (folder / "tokenizer.json").is_file():
        read_json(folder, "tokenizer.json")
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _read_model(
    folder: Path, auto_class: type, dtype: "torch.dtype", gguf_file: str | None = None
) -> "PreTrainedModel":
    model, report = auto_class.from_pretrained(  # type: ignore[attr-defined]
        folder,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        gguf_file=gguf_file,
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


def _context_length(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> int:
    config = model.config.get_text_config()
    limits = [
        getattr(config, "max_position_embeddings", None),
        getattr(config, "n_positions", None),
        tokenizer.model_max_length,
    ]
    known = [int(limit) for limit in limits if limit is not None and 0 < limit < _UNBOUNDED]
    return min(known, default=2048)


def _num_bytes(model: "torch.nn.Module") -> int:
    tensors = [*model.parameters(), *model.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors)


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
