"""A Llama-like transformers model packed for the compiled step: named tensors, and sizes."""

import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from servemu_engine.compiled_check import reference_logits
from servemu_engine.compiling import NotCompiled
from servemu_engine.weight_sizes import INTEGERS
from servemu_engine.weight_sources import Progress, no_progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Precision = Literal["float32", "bfloat16", "int16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int16")
"""Of weights, as compiled_products.h numbers them."""
_NORM = 32755.0
_SMALLEST = 1e-18
"""Norm of integers that share a scale, and the least norm that numbers other than zeros have: as in
compiled_integers.h."""

_FAMILIES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
_ROPE_TYPES = ("default", "linear", "llama3", "yarn")
"""Not `dynamic` and `longrope`: their angles depend on the longest sequence of a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What the compiled step knows of a model besides its tensors."""

    architecture: str
    precision: Precision
    panel: int
    num_layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_size: int
    vocab_size: int
    """Logits that are tokens; the others are padding."""
    eps: float
    scaling: float
    """Of scores of the attention."""
    rotation_scaling: float
    windows: tuple[int, ...]
    """Keys a token sees, a layer; 0: all."""

    def depths(self) -> dict[str, int]:
        """Inputs of each kind of matrix."""
        attended = self.heads * self.head_size
        of_layer = {"qkv": self.hidden, "out": attended, "gate_up": self.hidden, "down": self.inner}
        return {**of_layer, "head": self.hidden}

    def padded(self, size: int) -> int:
        """Up to whole panels."""
        return -(-size // self.panel) * self.panel


@dataclass(frozen=True, slots=True)
class PackedModel:
    """`tensors`, by name: `embedding` [vocab, hidden], `rotation` [head size / 2] (angle of a
    position), `head`, `norm_last` and `reference` (logits, of compiled_check.py); of a layer
    `0.qkv`, `0.out`, `0.gate_up` (panels of gate and up in turn), `0.down`, `0.norm_in`,
    `0.norm_post` and, where the model has them, `0.norm_q` and `0.norm_k`. The bias of a matrix, if
    any, is `0.qkv.bias`.

    Matrices: [panels, …], each panel laid out as compiled_products.h says for the precision.
    Vectors: float32, of matrices in whole panels.
    """

    sizes: Sizes
    tensors: dict[str, Tensor]

    @property
    def num_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


class _Attention(Protocol):
    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear
    o_proj: nn.Linear
    head_dim: int
    scaling: float


class _Mlp(Protocol):
    gate_proj: nn.Linear
    up_proj: nn.Linear
    down_proj: nn.Linear


@torch.no_grad()
def pack(
    model: "PreTrainedModel",
    panel: int,
    precision: Precision | None = None,
    progress: Progress = no_progress,
) -> PackedModel:
    """A copy, but for the embeddings, which are shared. `precision` None: the model's own. Raises
    `NotCompiled`."""
    check_supported(model)
    sizes = _sizes(model, panel)
    if precision == "int16":
        sizes = replace(sizes, precision=precision)
    packing = _Packing(sizes)
    parts = [*model.model.layers, model.lm_head]
    numbers = list(accumulate(_num_numbers(part) for part in parts))
    for number, block in enumerate(model.model.layers):
        packing.add_layer(str(number), block)
        progress("pack", numbers[number], numbers[-1])
    packing.add_matrix("head", [model.lm_head])
    packing.add_vector("norm_last", model.model.norm.weight)
    packing.add_vector("rotation", model.model.rotary_emb.inv_freq)
    packing.add_vector("reference", reference_logits(model))
    packing.tensors["embedding"] = model.get_input_embeddings().weight.detach()
    return PackedModel(sizes, packing.tensors)


def _num_numbers(part: nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


def _sizes(model: "PreTrainedModel", panel: int) -> Sizes:
    config, layers = model.config, list(model.model.layers)
    attention = cast(_Attention, layers[0].self_attn)
    return Sizes(
        architecture=type(model).__name__,
        precision="bfloat16" if model.dtype == torch.bfloat16 else "float32",
        panel=panel,
        num_layers=len(layers),
        hidden=config.hidden_size,
        inner=config.intermediate_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_size=attention.head_dim,
        vocab_size=config.vocab_size,
        eps=config.rms_norm_eps,
        scaling=attention.scaling,
        rotation_scaling=float(model.model.rotary_emb.attention_scaling),
        windows=tuple(_window(cast(_Attention, block.self_attn)) for block in layers),
    )


class _Packing:
    """Fills the tensors."""

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self.tensors: dict[str, Tensor] = {}

    def add_layer(self, name: str, block: nn.Module) -> None:
        attention, mlp = cast(_Attention, block.self_attn), cast(_Mlp, block.mlp)
        self.add_matrix(f"{name}.qkv", [attention.q_proj, attention.k_proj, attention.v_proj])
        self.add_matrix(f"{name}.out", [attention.o_proj])
        self.add_matrix(f"{name}.gate_up", [mlp.gate_proj, mlp.up_proj], in_turn=True)
        self.add_matrix(f"{name}.down", [mlp.down_proj])
        self.add_vector(f"{name}.norm_in", block.get_parameter("input_layernorm.weight"))
        self.add_vector(f"{name}.norm_post", block.get_parameter("post_attention_layernorm.weight"))
        for part in "qk":
            norm = getattr(attention, f"{part}_norm", None)
            if norm is not None:
                self.add_vector(f"{name}.norm_{part}", norm.weight)

    def add_matrix(self, name: str, linears: Sequence[nn.Linear], in_turn: bool = False) -> None:
        """Their outputs side by side, or in turn panel by panel."""
        weights = [linear.weight.detach() for linear in linears]
        biases = [
            torch.zeros(linear.out_features)
            if linear.bias is None
            else linear.bias.detach().float()
            for linear in linears
        ]
        if in_turn:
            weight, bias = self._in_turn(weights), self._in_turn(biases)
        else:
            weight = self._whole(weights[0] if len(weights) == 1 else torch.cat(weights))
            bias = self._whole(torch.cat(biases))
        self.tensors[name] = panels(weight, self._sizes.panel, self._sizes.precision)
        if any(linear.bias is not None for linear in linears):
            self.add_vector(f"{name}.bias", bias)

    def add_vector(self, name: str, vector: Tensor) -> None:
        self.tensors[name] = vector.detach().float().contiguous()

    def _whole(self, rows: Tensor) -> Tensor:
        """Zeros below, up to whole panels."""
        missing = self._sizes.padded(len(rows)) - len(rows)
        return F.pad(rows, (*(0, 0) * (rows.ndim - 1), 0, missing)) if missing else rows

    def _in_turn(self, parts: Sequence[Tensor]) -> Tensor:
        panels = [self._whole(part) for part in parts]
        panels = [part.view(-1, self._sizes.panel, *part.shape[1:]) for part in panels]
        return torch.stack(panels, dim=1).flatten(0, 2)


def panels(weight: Tensor, panel: int, precision: Precision) -> Tensor:
    """[outputs, inputs], whole panels of outputs, as the precision wants them: [panels, …]."""
    depth = weight.shape[1]
    if precision == "int16":
        return _integers(weight.float(), panel)
    packed = huge_pages((len(weight) // panel, depth, panel), weight.dtype)
    return packed.copy_(weight.view(-1, panel, depth).transpose(1, 2))


def _integers(weight: Tensor, panel: int) -> Tensor:
    """[panels, blocks, …] of int16: `panel` scales, which are float32, and pairs of integers."""
    outputs, depth = weight.shape
    size = _block_size(depth)
    blocks = -(-depth // size)
    if blocks * size > depth:
        weight = F.pad(weight, (0, blocks * size - depth))
    weight = weight.view(outputs // panel, panel, blocks, size)
    norm = torch.linalg.vector_norm(weight, dim=-1, keepdim=True)
    factor = torch.where(norm > _SMALLEST, _NORM / norm, 0)
    packed = huge_pages((outputs // panel, blocks, panel * (2 + size)), torch.int16)
    scales = (norm / _NORM).squeeze(-1).transpose(1, 2)
    packed[..., : 2 * panel] = scales.contiguous().view(torch.int16)
    integers = (weight * factor).round_().to(torch.int16).view(*weight.shape[:3], size // 2, 2)
    target = packed[..., 2 * panel :].view(*packed.shape[:2], size // 2, panel, 2)
    target.copy_(integers.permute(0, 2, 3, 1, 4))
    return packed


def _block_size(depth: int) -> int:
    """`block_size` of compiled_integers.h: even, all blocks alike."""
    return -(-depth // -(-depth // INTEGERS) // 2) * 2


def check_supported(model: "PreTrainedModel") -> None:
    """Raises `NotCompiled` if the compiled step does not know the model."""
    name, config = type(model).__name__, model.config
    if name not in _FAMILIES:
        raise NotCompiled(f"{name} is not one of {', '.join(_FAMILIES)}")
    if model.device.type != "cpu" or model.dtype not in (torch.float32, torch.bfloat16):
        raise NotCompiled(f"{model.dtype} on {model.device}: only float32 and bfloat16 on CPU")
    rope = (config.rope_parameters or {}).get("rope_type", "default")
    if config.hidden_act != "silu" or rope not in _ROPE_TYPES:
        raise NotCompiled(f"{name} with activation {config.hidden_act!r}, rope type {rope!r}")
    if type(model.lm_head) is not nn.Linear:
        raise NotCompiled(f"{name}: its head is no plain linear layer")
    head_size = cast(_Attention, model.model.layers[0].self_attn).head_dim
    if 2 * len(model.model.rotary_emb.inv_freq) != head_size:
        raise NotCompiled(f"{name} with partial rotation")


def _window(attention: _Attention) -> int:
    """Of Mistral, in the config; of Qwen, in each layer; 0: it sees all."""
    if hasattr(attention, "sliding_window"):
        return int(attention.sliding_window or 0)
    config = getattr(attention, "config", None)
    if getattr(config, "model_type", "") != "mistral":
        return 0
    return int(getattr(config, "sliding_window", None) or 0)


def huge_pages(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory that is read from end to end in every step."""
    pages = mmap.mmap(-1, math.prod(shape) * dtype.itemsize)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=dtype).view(shape)
