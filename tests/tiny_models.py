"""Random models of the usual families, small enough to be made anew by each test."""

from copy import deepcopy

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

ENDS = {"eos_token_id": None, "bos_token_id": None, "pad_token_id": None}
SHAPE = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    **ENDS,
}
GROUPED = {**SHAPE, "num_key_value_heads": 2}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
ODD = {**GROUPED, "vocab_size": 301, "hidden_size": 60, "intermediate_size": 101, "head_dim": 10}
COMPILED: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**GROUPED),
    "llama with tied embeddings": LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "llama of odd sizes": LlamaConfig(**ODD),
    "llama with biases": LlamaConfig(**GROUPED, attention_bias=True, mlp_bias=True),
    "llama with scaled rotation": LlamaConfig(**GROUPED, rope_parameters=LLAMA3),
    "mistral": MistralConfig(**GROUPED, sliding_window=None),
    "mistral with sliding window": MistralConfig(**GROUPED, sliding_window=24),
    "qwen2 with biases": Qwen2Config(**GROUPED),
    "qwen2 with half of the layers sliding": Qwen2Config(
        **GROUPED, use_sliding_window=True, sliding_window=24, max_window_layers=1
    ),
    "qwen3 with normed queries": Qwen3Config(**GROUPED, head_dim=24),
}
"""Those that the compiled step knows."""
FAMILIES: dict[str, PretrainedConfig] = {
    **COMPILED,
    "gemma": GemmaConfig(**GROUPED, head_dim=16),
    "gemma2 with capped scores": Gemma2Config(
        **GROUPED, head_dim=16, sliding_window=24, attn_logit_softcapping=5.0
    ),
    "gemma3": Gemma3TextConfig(**GROUPED, head_dim=16, sliding_window=24),
    "phi3 with fused projections": Phi3Config(**GROUPED),
    "gpt-neox with partial rotation": GPTNeoXConfig(**SHAPE),
    "gpt2 with learned positions": GPT2Config(
        vocab_size=300, n_embd=64, n_layer=2, n_head=4, n_positions=512, **ENDS
    ),
}


def tiny(
    config: PretrainedConfig,
    dtype: torch.dtype = torch.float32,
    of: type[AutoModel] | type[AutoModelForCausalLM] = AutoModelForCausalLM,
) -> PreTrainedModel:
    """Always the same weights, so far from each other that greedy does not repeat one token."""
    torch.manual_seed(0)
    model = of.from_config(deepcopy(config)).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.mul_(4)
        elif name.endswith("bias"):
            parameter.uniform_(-0.5, 0.5)
    made: PreTrainedModel = model.to(dtype)
    return made
