"""The local engine beside plain `model.generate` on the same weights: load, tokens/s, first token.

Interleaved round by round in one process, so that both see the same machine.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tests.bench.report import Cell, Options, Table, middle, significant

from servemu.settings import Settings
from servemu_engine.base import GenerateRequest, Message, Sampling
from servemu_engine.weights import ModelStore

if TYPE_CHECKING:
    from servemu_engine.local import LocalEngine

T = TypeVar("T")

MODEL = "smollm2-135m-instruct"
ONCE = "Once each; ours loads first, and so pays for what both import late."
STREAMS = (1, 8, 32)
NEW_TOKENS = 64
PROMPT_WORDS = 55
"""Makes 90 to 110 tokens with the chat template."""

WORDS = (
    "harbour",
    "window",
    "engine",
    "river",
    "lantern",
    "market",
    "copper",
    "winter",
    "garden",
    "bridge",
    "letter",
    "violin",
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One batch of requests that arrived at once."""

    tokens: int
    """Generated, up to and with the end of each answer."""
    seconds: float
    first_token: float
    """Seconds until the last of them had its first token."""

    @property
    def rate(self) -> float:
        """Tokens/s end to end, prefill included."""
        return self.tokens / self.seconds


@dataclass(slots=True)
class Rounds:
    """The same batch by both, round by round."""

    ours: list[Measured] = field(default_factory=list)
    plain: list[Measured] = field(default_factory=list)


def run(options: Options) -> list[Table]:
    """Load times, then the race."""
    folder = ModelStore(Settings().model_store.expanduser()).ensure(MODEL)
    _, torch_seconds = timed(_import_torch)
    ours, engine_seconds = timed(lambda: _engine(folder, options.dtype))
    _, load_seconds = timed(ours.start)
    try:
        plain, plain_seconds = timed(lambda: Plain(folder, options.dtype))
        results = race(ours, plain, options.rounds)
    finally:
        ours.close()
    loading: list[tuple[Cell, ...]] = [
        ("import torch", significant(torch_seconds)),
        ("import transformers and the engine", significant(engine_seconds)),
        ("load and first step, ours", significant(load_seconds)),
        ("load, plain from_pretrained", significant(plain_seconds)),
    ]
    return [
        Table("Engine: from nothing to loaded", ("part", "s"), loading, (ONCE,)),
        speed(results, options, plain.prompt_tokens(prompts(max(STREAMS)))),
    ]


def prompts(count: int) -> list[str]:
    """Chat messages that differ and ask for long answers."""
    return [
        f"Tell a long story, number {number}, in which each of these has its place: "
        + " ".join(
            WORDS[(number + step * (1 + number % 7)) % len(WORDS)] for step in range(PROMPT_WORDS)
        )
        for number in range(count)
    ]


def race(ours: "LocalEngine", plain: "Plain", rounds: int) -> dict[int, Rounds]:
    """By number of streams. A short batch of each goes first, uncounted."""
    asyncio.run(generate(ours, prompts(2)))
    plain.generate(prompts(2))
    results = {streams: Rounds() for streams in STREAMS}
    for _ in range(rounds):
        for streams, rounds_of in results.items():
            texts = prompts(streams)
            rounds_of.ours.append(asyncio.run(generate(ours, texts)))
            rounds_of.plain.append(plain.generate(texts))
    return results


async def generate(engine: "LocalEngine", texts: Sequence[str]) -> Measured:
    """All texts at once, each read by a reader of its own."""
    began = time.perf_counter()
    sampling = Sampling(max_tokens=NEW_TOKENS, temperature=0.0)

    async def answer(text: str) -> tuple[int, float]:
        request = GenerateRequest(messages=(Message("user", text),), sampling=sampling)
        tokens, first = 0, 0.0
        async with engine.submit(engine.prepare(request)) as generation:
            async for chunk in generation:
                first = first or time.perf_counter() - began
                tokens += chunk.num_tokens
        return tokens, first

    answers = await asyncio.gather(*map(answer, texts))
    seconds = time.perf_counter() - began
    return Measured(sum(tokens for tokens, _ in answers), seconds, max(at for _, at in answers))


class Plain:
    """What anybody would write: one left-padded static batch, greedy."""

    def __init__(self, folder: Path, dtype: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype)
        ).eval()
        self._first = 0.0

    def prompt_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each prompt."""
        return [int(count) for count in self._encode(texts)["attention_mask"].sum(dim=1)]

    def generate(self, texts: Sequence[str]) -> Measured:
        """The batch is done when its longest answer is."""
        began = time.perf_counter()
        self._first = 0.0
        batch = self._encode(texts)

        def note_first(input_ids: Any, scores: Any, **_: Any) -> Any:
            self._first = self._first or time.perf_counter() - began
            return input_ids.new_zeros(input_ids.shape[0], dtype=bool)

        out = self._model.generate(
            **batch, max_new_tokens=NEW_TOKENS, do_sample=False, stopping_criteria=[note_first]
        )
        seconds = time.perf_counter() - began
        answers = out[:, batch["input_ids"].shape[1] :].tolist()
        return Measured(sum(map(self._length, answers)), seconds, self._first)

    def _encode(self, texts: Sequence[str]) -> Any:
        chats = [[{"role": "user", "content": text}] for text in texts]
        return self._tokenizer.apply_chat_template(
            chats,
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )

    def _length(self, answer: list[int]) -> int:
        """Up to and with the end token; what follows is padding."""
        end = self._tokenizer.eos_token_id
        return answer.index(end) + 1 if end in answer else len(answer)


def speed(results: dict[int, Rounds], options: Options, lengths: list[int]) -> Table:
    """Medians, and the ratio of each round's pair."""
    rows: list[tuple[Cell, ...]] = []
    for streams, both in results.items():
        ratios = [a.rate / b.rate for a, b in zip(both.ours, both.plain, strict=True)]
        rows.append(
            (
                streams,
                middle([one.rate for one in both.ours]),
                middle([one.rate for one in both.plain]),
                middle(ratios),
                f"{min(ratios):.2f}-{max(ratios):.2f}",
                middle([one.first_token for one in both.ours]),
                middle([one.first_token for one in both.plain]),
                both.ours[0].tokens,
                both.plain[0].tokens,
            )
        )
    return Table(
        f"Engine against plain generate, {options.dtype}",
        (
            "streams",
            "ours tokens/s",
            "generate tokens/s",
            "ratio",
            "range",
            "ours TTFT max s",
            "generate TTFT s",
            "ours tokens",
            "generate tokens",
        ),
        rows,
        (
            f"Median of {options.rounds} interleaved rounds; generated tokens over the whole wall, "
            "prefill included.",
            f"Prompts of {min(lengths)}-{max(lengths)} tokens, {NEW_TOKENS} new ones, no HTTP.",
        ),
    )


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Its result and its seconds."""
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def _import_torch() -> None:
    import torch

    assert torch.__version__


def _engine(folder: Path, dtype: str) -> "LocalEngine":
    from servemu_engine.local import LocalEngine, LocalOptions

    return LocalEngine(folder, MODEL, LocalOptions(dtype=dtype))
