"""A tiny random Llama that writes text: what it is asked, and what transformers make of it."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from servemu_engine.base import GenerateRequest, Sampling

WINDOW = 1024
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROMPTS = (
    "the cat",
    "a",
    "where is the dog? " * 5,
    "naïve café 日本語",
    "x" * 120,
    "on the mat, the cat sat",
)
GREEDY = Sampling(temperature=0, max_tokens=24)


@dataclass(frozen=True)
class Reference:
    """The same weights in transformers' own hands."""

    folder: Path
    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerBase

    def greedy(self, ids: list[int], max_tokens: int) -> list[int]:
        """Tokens of `generate`, with the end token if there is one."""
        output = self.model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=0,
        )
        tokens: list[int] = output[0, len(ids) :].tolist()
        return tokens

    def text(self, ids: list[int], max_tokens: int) -> str:
        tokens = self.greedy(ids, max_tokens)
        before = self.tokenizer.decode(ids, skip_special_tokens=True)
        return str(self.tokenizer.decode(ids + tokens, skip_special_tokens=True))[len(before) :]


def raw(prompt: str, sampling: Sampling = GREEDY) -> GenerateRequest:
    return GenerateRequest(prompt=prompt, use_chat_template=False, sampling=sampling)
