"""What a machine with a GPU can tell: `python -m tests.bench.gpu_check [FOLDER] [--streams 8 32]`.

Greedy answers of replayed steps, of steps run anew and of `generate` must be the same in float32;
then tokens/s in bfloat16, beside `generate` and transformers' continuous batching. FOLDER: a model;
none: random weights in the shape of SmolLM2-135M. Exit status 1: they differ, 2: no GPU here.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from tests.bench.engine_peers import CB_BLOCKS, CB_TOKENS
from tests.greedy import answers
from transformers import AutoModelForCausalLM, LlamaConfig

from servemu_engine.graphs import Capture, cuda_captures
from servemu_engine.runner import Runner
from servemu_engine.scheduler import Scheduler
from servemu_engine.slots import Capacity

SMOLLM2 = LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    max_position_embeddings=8192,
    tie_word_embeddings=True,
    eos_token_id=None,
    bos_token_id=None,
)
LENGTHS = (5, 300, 64, 17, 130, 1, 250, 90)
NEW_TOKENS = 64
Prompts = Sequence[Sequence[int]]
Captures = Callable[[], Capture] | None


def model_of(config: Any, folder: Path | None, dtype: torch.dtype, device: str) -> Any:
    """On `device`, in evaluation mode."""
    torch.manual_seed(0)
    if folder is None:
        model = AutoModelForCausalLM.from_config(deepcopy(config), dtype=dtype)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model.generation_config.eos_token_id = None  # all answers have NEW_TOKENS
    return model.eval().requires_grad_(False).to(device)


def ours(model: Any, prompts: Prompts, captures: Captures) -> tuple[list[list[int]], float]:
    """Answers and seconds of a second run: the first one captures."""
    runner = Runner(model, captures=captures)
    runner.check()
    _answers(runner, prompts)
    _wait(model)
    began = time.perf_counter()
    answers = _answers(runner, prompts)
    _wait(model)
    return answers, time.perf_counter() - began


def _answers(runner: Runner, prompts: Prompts) -> list[list[int]]:
    count = len(prompts)
    scheduler = Scheduler(Capacity(count, 1024 * count, 1024, shortest=512), 512)
    whole = answers(runner, scheduler, prompts, NEW_TOKENS)
    return [tokens[len(p) :] for tokens, p in zip(whole, prompts, strict=True)]


def generated(model: Any, prompts: Prompts) -> tuple[list[list[int]], float]:
    """Those of `generate`, on one left-padded batch."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    given = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
    options = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": 0}
    model.generate(**given, **options)
    _wait(model)
    began = time.perf_counter()
    answers = model.generate(**given, **options)[:, longest:].tolist()
    return answers, time.perf_counter() - began


def batched(model: Any, prompts: Prompts) -> float:
    """Seconds of transformers' continuous batching."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    config = GenerationConfig(
        max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    began = 0.0
    for _ in range(2):
        began = time.perf_counter()
        model.generate_batch(
            [list(p) for p in prompts],
            generation_config=config,
            continuous_batching_config=ContinuousBatchingConfig(
                num_blocks=CB_BLOCKS, max_batch_tokens=CB_TOKENS
            ),
        )
    return time.perf_counter() - began


def prompts_of(count: int, vocab_size: int) -> Prompts:
    """Of many lengths, nothing in common."""
    generator = torch.Generator().manual_seed(count)
    lengths = [LENGTHS[i % len(LENGTHS)] for i in range(count)]
    return [torch.randint(3, vocab_size, (n,), generator=generator).tolist() for n in lengths]


def equality(make: Callable[[torch.dtype], Any], captures: Captures, streams: int) -> list[str]:
    """What differs, in float32."""
    vocab_size = make(torch.float32).config.vocab_size
    prompts = prompts_of(streams, vocab_size)
    wanted, _ = generated(make(torch.float32), prompts)
    failures = []
    for name, how in (("run anew", None), ("replayed", captures)):
        got, _ = ours(make(torch.float32), prompts, how)
        wrong = [i for i, (a, b) in enumerate(zip(got, wanted, strict=True)) if a != b]
        if wrong:
            failures.append(f"steps {name} differ from generate in answers {wrong} of {streams}")
    return failures


def rates(make: Callable[[torch.dtype], Any], captures: Captures, streams: int) -> dict[str, float]:
    """Tokens/s in bfloat16, prompts included, by who answered."""
    prompts = prompts_of(streams, make(torch.bfloat16).config.vocab_size)
    racers: dict[str, Callable[[Any], float]] = {
        "ours, replayed": lambda model: ours(model, prompts, captures)[1],
        "ours, run anew": lambda model: ours(model, prompts, None)[1],
        "generate": lambda model: generated(model, prompts)[1],
        "transformers CB": lambda model: batched(model, prompts),
    }
    tokens = streams * NEW_TOKENS
    return {name: tokens / seconds(make(torch.bfloat16)) for name, seconds in racers.items()}


def _wait(model: Any) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", nargs="?", type=Path)
    arguments.add_argument("--device", default="cuda:0")
    arguments.add_argument("--streams", nargs="+", type=int, default=[1, 8, 32])
    chosen = arguments.parse_args()
    if not torch.cuda.is_available():
        sys.stderr.write("no GPU here: torch sees none, nothing was checked\n")
        return 2
    sys.stdout.write(f"{torch.cuda.get_device_name(chosen.device)}, torch {torch.__version__}\n")

    def make(dtype: torch.dtype) -> Any:
        return model_of(SMOLLM2, chosen.folder, dtype, chosen.device)

    captures = cuda_captures(torch.device(chosen.device))
    failures = [line for count in chosen.streams for line in equality(make, captures, count)]
    sys.stdout.write("\n".join(failures or ["float32: all answers are those of generate"]) + "\n")
    for count in chosen.streams:
        for name, rate in rates(make, captures, count).items():
            sys.stdout.write(f"{count:4} streams  {name:16} {rate:9.0f} tokens/s\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
