"""What the local engine races against: others that answer the same requests, same weights."""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

LLAMA = Path(__file__).with_name("llama_peer.py")
PEERS = Path(__file__).resolve().parents[2] / ".venv-peers"

CB_BLOCKS = 128
"""Of 256 tokens each: three for each of 32 answers, and some to spare."""
CB_TOKENS = 1024
"""A step; 512 measured the same."""


@dataclass(frozen=True, slots=True)
class Work:
    """Requests that arrive at once."""

    texts: tuple[str, ...]
    new_tokens: tuple[int, ...]
    """Most of each answer."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How one batch of requests went."""

    tokens: int
    """Generated, up to and with the end of each answer."""
    seconds: float
    firsts: tuple[float, ...]
    """Seconds until the first token of each; empty: not known."""
    late: int
    """Tokens after the last of `firsts`."""

    @property
    def rate(self) -> float:
        """Tokens/s end to end, prefill included."""
        return self.tokens / self.seconds

    @property
    def decode_rate(self) -> float | None:
        """Tokens/s once every answer has begun."""
        if not self.firsts or not self.late:
            return None
        return self.late / (self.seconds - max(self.firsts))


class Peer(Protocol):
    """Somebody who answers chat requests, greedily."""

    name: str

    def answer(self, work: Work) -> Measured: ...

    def close(self) -> None: ...


def num_cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def take_all_cores() -> None:
    """Also threads that begin from now on: ours set torch's number for theirs."""
    import torch

    torch.set_num_threads(num_cores())


class Prompts:
    """Texts to token ids by the model's chat template."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self.folder = folder
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Of each prompt."""
        chats = [[{"role": "user", "content": text}] for text in texts]
        encoded = self.tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, return_dict=True
        )
        return list(encoded["input_ids"])


class Plain:
    """What anybody would write: `model.generate` on one left-padded static batch."""

    def __init__(self, folder: Path, dtype: str, prompts: Prompts) -> None:
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.name = f"generate {dtype}"
        self._prompts = prompts
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype)
        ).eval()

    def answer(self, work: Work) -> Measured:
        """The batch is done when its longest answer is."""
        take_all_cores()
        began = time.perf_counter()
        first = 0.0
        ids = self._prompts.ids(work.texts)
        batch = self._prompts.tokenizer.pad({"input_ids": ids}, return_tensors="pt")

        def note_first(input_ids: Any, scores: Any, **_: Any) -> Any:
            nonlocal first
            first = first or time.perf_counter() - began
            return input_ids.new_zeros(input_ids.shape[0], dtype=bool)

        out = self._model.generate(
            **batch,
            max_new_tokens=max(work.new_tokens),
            do_sample=False,
            stopping_criteria=[note_first],
        )
        seconds = time.perf_counter() - began
        answers = out[:, batch["input_ids"].shape[1] :].tolist()
        lengths = [self._length(a[:n]) for a, n in zip(answers, work.new_tokens, strict=True)]
        firsts = (first,) * len(ids)
        return Measured(sum(lengths), seconds, firsts, sum(lengths) - len(ids))

    def _length(self, answer: list[int]) -> int:
        """Up to and with the end token; what follows is padding."""
        end = self._prompts.tokenizer.eos_token_id
        return answer.index(end) + 1 if end in answer else len(answer)

    def close(self) -> None:
        del self._model


class ContinuousBatching:
    """transformers' own. It takes one limit for all answers.

    Left to itself it takes most of the memory for keys and values anew for every batch, seconds
    before the first token: it gets what the largest workload needs.
    """

    def __init__(self, folder: Path, prompts: Prompts) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self.name = "transformers CB float32"
        self._prompts = prompts
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa"
        ).eval()

    def answer(self, work: Work) -> Measured:
        from transformers import ContinuousBatchingConfig, GenerationConfig

        config = GenerationConfig(
            max_new_tokens=max(work.new_tokens),
            do_sample=False,
            eos_token_id=self._prompts.tokenizer.eos_token_id,
            pad_token_id=self._prompts.tokenizer.pad_token_id,
        )
        take_all_cores()
        began = time.perf_counter()
        outputs = self._model.generate_batch(
            self._prompts.ids(work.texts),
            generation_config=config,
            continuous_batching_config=ContinuousBatchingConfig(
                num_blocks=CB_BLOCKS, max_batch_tokens=CB_TOKENS
            ),
            record_timestamps=True,
        )
        seconds = time.perf_counter() - began
        times = [
            [at - began for at in output.timestamps[:most]]
            for output, most in zip(outputs.values(), work.new_tokens, strict=True)
        ]
        firsts = tuple(of_answer[0] for of_answer in times)
        late = sum(at > max(firsts) for of_answer in times for at in of_answer)
        return Measured(sum(map(len, times)), seconds, firsts, late)

    def close(self) -> None:
        del self._model


class Llama:
    """llama.cpp in a process of its own: another OpenMP and another allocator."""

    def __init__(self, file_type: str, prompts: Prompts) -> None:
        self.name = f"llama.cpp {file_type}"
        self._prompts = prompts
        self._process = subprocess.Popen(
            [PEERS / "bin" / "python", LLAMA, PEERS / f"{file_type}.gguf"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def answer(self, work: Work) -> Measured:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"prompts": self._prompts.ids(work.texts), "new_tokens": work.new_tokens}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Measured(
            answer["tokens"], answer["seconds"], tuple(answer["firsts"]), answer["late"]
        )

    def close(self) -> None:
        self._process.communicate()
