"""A Llama-like transformers model as the compiled step wants it: packed weights, C structures."""

import ctypes
import math
import mmap
from collections.abc import Sequence
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from servemu_engine.compiling import NotCompiled

_FAMILIES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
_ROPE_TYPES = ("default", "linear", "llama3", "yarn")
"""Not `dynamic` and `longrope`: their angles depend on the longest sequence of a step."""


class Linear(ctypes.Structure):
    """`Linear` of compiled_step.c."""

    _fields_ = [
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("depth", ctypes.c_int64),
        ("width", ctypes.c_int64),
    ]


class Layer(ctypes.Structure):
    """`Layer` of compiled_step.c."""

    _fields_ = [
        *((name, Linear) for name in ("qkv", "out", "gate_up", "down")),
        *((name, ctypes.c_void_p) for name in ("norm_in", "norm_post", "norm_q", "norm_k")),
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
        ("window", ctypes.c_int64),
    ]


_SIZES = ("num_layers", "hidden", "inner", "heads", "kv_heads", "head_size", "is_bf16")


class Model(ctypes.Structure):
    """`Model` of compiled_step.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in _SIZES),
        ("eps", ctypes.c_float),
        ("scaling", ctypes.c_float),
        ("layers", ctypes.POINTER(Layer)),
        ("norm_last", ctypes.c_void_p),
        ("head", Linear),
    ]


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


class CompiledWeights:
    """The packed weights, [width / panel, depth, panel] each, and the structures that point there.

    Weights are float32, or bfloat16 where the model's are; norms and biases are float32.
    """

    def __init__(self, model: PreTrainedModel, panel: int) -> None:
        check_supported(model)
        self._panel = panel
        self._dtype = model.dtype
        self._kept: list[Tensor] = []
        layers = list(model.model.layers)
        self.layers = (Layer * len(layers))(*map(self._layer, layers))
        config, attention = model.config, cast(_Attention, layers[0].self_attn)
        self.model = Model(
            num_layers=len(layers),
            hidden=config.hidden_size,
            inner=config.intermediate_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_size=attention.head_dim,
            is_bf16=self._dtype == torch.bfloat16,
            eps=config.rms_norm_eps,
            scaling=attention.scaling,
            layers=ctypes.cast(self.layers, ctypes.POINTER(Layer)),
            norm_last=self._pointer(model.model.norm.weight),
            head=self._packed([model.lm_head]),
        )

    def padded(self, size: int) -> int:
        """Up to whole panels."""
        return -(-size // self._panel) * self._panel

    def _layer(self, block: nn.Module) -> Layer:
        attention, mlp = cast(_Attention, block.self_attn), cast(_Mlp, block.mlp)
        norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
        return Layer(
            qkv=self._packed([attention.q_proj, attention.k_proj, attention.v_proj]),
            out=self._packed([attention.o_proj]),
            gate_up=self._packed([mlp.gate_proj, mlp.up_proj], in_turn=True),
            down=self._packed([mlp.down_proj]),
            norm_in=self._pointer(block.get_parameter("input_layernorm.weight")),
            norm_post=self._pointer(block.get_parameter("post_attention_layernorm.weight")),
            norm_q=None if norms[0] is None else self._pointer(norms[0].weight),
            norm_k=None if norms[1] is None else self._pointer(norms[1].weight),
            window=_window(attention),
        )

    def _packed(self, linears: Sequence[nn.Linear], in_turn: bool = False) -> Linear:
        """Their outputs side by side, or in turn panel by panel."""
        weights = [linear.weight.detach() for linear in linears]
        biases = [
            torch.zeros(linear.out_features)
            if linear.bias is None
            else linear.bias.detach().float()
            for linear in linears
        ]
        has_bias = any(linear.bias is not None for linear in linears)
        if in_turn:
            weight, bias = self._in_turn(weights), self._in_turn(biases)
        else:
            weight = self._whole(weights[0] if len(weights) == 1 else torch.cat(weights))
            bias = self._whole(torch.cat(biases))
        width, depth = weight.shape
        packed = _huge_pages((width // self._panel, depth, self._panel), self._dtype)
        packed.copy_(weight.view(-1, self._panel, depth).transpose(1, 2))
        self._kept.append(packed)
        return Linear(packed.data_ptr(), self._pointer(bias) if has_bias else None, depth, width)

    def _whole(self, rows: Tensor) -> Tensor:
        """Zeros below, up to whole panels."""
        missing = self.padded(len(rows)) - len(rows)
        return F.pad(rows, (*(0, 0) * (rows.ndim - 1), 0, missing)) if missing else rows

    def _in_turn(self, parts: Sequence[Tensor]) -> Tensor:
        panels = [self._whole(part) for part in parts]
        panels = [part.view(-1, self._panel, *part.shape[1:]) for part in panels]
        return torch.stack(panels, dim=1).flatten(0, 2)

    def _pointer(self, vector: Tensor) -> int:
        kept = vector.detach().float().contiguous()
        self._kept.append(kept)
        return kept.data_ptr()


def check_supported(model: PreTrainedModel) -> None:
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


def _window(attention: _Attention) -> int:
    """Of Mistral, in the config; of Qwen, in each layer; 0: it sees all."""
    if hasattr(attention, "sliding_window"):
        return int(attention.sliding_window or 0)
    config = getattr(attention, "config", None)
    if getattr(config, "model_type", "") != "mistral":
        return 0
    return int(getattr(config, "sliding_window", None) or 0)


def _huge_pages(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory that is read from end to end in every step."""
    pages = mmap.mmap(-1, math.prod(shape) * dtype.itemsize)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=dtype).view(shape)
