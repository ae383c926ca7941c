"""A transformers model on this machine as an `Engine`: loading, scheduling and running, wired."""

import asyncio
import gc
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from servemu_engine.apart import apart
from servemu_engine.base import EngineInfo, GenerateRequest, PreparedRequest
from servemu_engine.border import check_ids, check_sampling
from servemu_engine.chat_template import encode_request, num_characters
from servemu_engine.compiled_files import FOLDER
from servemu_engine.compiled_packing import Precision
from servemu_engine.errors import EngineClosed, LoadFailed, PromptTooLong
from servemu_engine.generation import LocalGeneration, Reader
from servemu_engine.grammar import Grammars
from servemu_engine.loading import context_length, placement
from servemu_engine.loop import Answer, EngineLoop
from servemu_engine.memory import FreeMemory, KvNeeds, free_memory, kv_bytes_for
from servemu_engine.restarts import Restarts
from servemu_engine.runners import CheckedRunner, RunnerChoice, RunnerOptions
from servemu_engine.scheduler import Scheduler
from servemu_engine.sequence import Sequence
from servemu_engine.slots import Capacity
from servemu_engine.starting import Started, start_model
from servemu_engine.stopping import AnswerText, StopRules
from servemu_engine.tools import ToolCallText, usable
from servemu_engine.vocabulary import Vocabulary
from servemu_engine.weight_sizes import most_memory_of
from servemu_engine.weight_sources import Progress, no_progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SMALLEST_WINDOW = 16


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """How a local engine uses the machine."""

    dtype: str = "auto"
    """auto: float32 on CPU, where greedy then does not depend on the batch; bfloat16 on CUDA.
    int16: of compiled products, where greedy does not depend on it either; elsewhere float32."""
    device: str = "auto"
    max_num_sequences: int = 256
    """Most answers generated at a time. As a rule `kv_bytes` is what makes others wait."""
    kv_bytes: int | None = None
    """Most memory for keys and values; fewer or shorter answers run at a time when it is small.
    None: of what is free once the weights are loaded, on CPU at most 4 GiB (`memory`)."""
    num_models: int = 1
    """How many engines are to find room beside each other, where `kv_bytes` is None."""
    free_memory: FreeMemory = free_memory
    cuda_graphs: bool = True
    """On one GPU, decoding steps are captured and replayed."""
    prefill_chunk: int = 512
    """Most prompt tokens a step while answers are generated; fewer where such a step takes longer
    than `scheduler.LONGEST_STALL`. 512 measured 5 to 12 % faster end to end than 256 at 32 streams
    of a 135M model."""
    prefill_alone: int = 512
    """Prompt tokens a step while no answer is being generated."""
    run_ahead: int = 32
    """Tokens an answer may be ahead of its reader before it pauses."""
    num_threads: int | None = None
    """Cores a step uses on CPU. Where other processes compete for all of them, fewer is faster: a
    step waits for its slowest thread."""
    runner: RunnerChoice = "auto"
    """auto: the compiled step where it can be had and is right; else transformers, which serves
    any model."""
    compiled: Path | None = None
    """Folder of compiled libraries; None: beside the model's."""
    progress: Progress = no_progress
    """Told how far `start` is."""
    now: Callable[[], float] = time.monotonic
    draw_seed: Callable[[], int] = lambda: secrets.randbits(63)
    """Seed of a request that names none."""


@dataclass(frozen=True, slots=True)
class _Running:
    """What exists between `start` and `close`."""

    tokenizer: "PreTrainedTokenizerBase"
    runner: CheckedRunner
    vocabulary: Vocabulary
    grammars: Grammars
    end_ids: frozenset[int]
    window: int
    vocab_size: int
    """Of the model, not of its tokenizer."""
    make_loop: Callable[[], EngineLoop]
    loop: EngineLoop


class LocalEngine:
    """Any decoder-only model of transformers, from a folder of safetensors.

    A stand-in may be asked to play a model with a longer context (`context_length`): prompts are
    counted whole, but the model sees only their newest tokens, as many as its own window takes
    with room for the answer (at most half of the window).
    """

    def __init__(self, folder: Path, name: str, options: LocalOptions | None = None) -> None:
        self._folder = folder
        self._options = options or LocalOptions()
        self._running: _Running | None = None
        self._restarts = Restarts(self._options.now)
        self._info = EngineInfo(
            name=name,
            kind="local",
            architecture="",
            dtype=self._options.dtype,
            device=self._options.device,
            context_length=0,
            num_parameters=0,
            num_bytes=most_memory_of(folder, self._options.dtype),
            load_seconds=0.0,
        )

    @property
    def info(self) -> EngineInfo:
        """Before `start` sizes are 0, and the bytes an estimate."""
        return self._info

    def start(self) -> None:
        """Load the weights, run one tiny step, start the thread. Raises `LoadFailed`."""
        began = time.perf_counter()
        options = self._options
        where = placement(self._folder, options.dtype, options.device)
        started, vocabulary = apart(
            lambda: start_model(self._folder, where, self._runner_options())
        )
        tokenizer = vocabulary.tokenizer
        runner, vocab_size = started.runner, started.facts.vocab_size
        capacity = self._capacity(runner, context_length(started.facts.positions, tokenizer))
        window = capacity.window

        def make_loop() -> EngineLoop:
            scheduler = Scheduler(capacity, options.prefill_chunk, options.prefill_alone)
            return EngineLoop(scheduler, runner, vocabulary.token_bytes)

        loop = make_loop()
        end_ids = vocabulary.end_ids(started.facts.end_ids)
        grammars = Grammars(tokenizer, vocab_size, end_ids)
        loop.start()
        self._running = _Running(
            tokenizer, runner, vocabulary, grammars, end_ids, window, vocab_size, make_loop, loop
        )
        info = self._describe(started, where.device)
        seconds = time.perf_counter() - began
        self._info = replace(info, context_length=window, load_seconds=seconds)

    def _capacity(self, runner: CheckedRunner, longest: int) -> Capacity:
        """`longest`: tokens that the model can see."""
        kv_bytes = self._kv_bytes(runner)
        kv_tokens = kv_bytes // runner.num_bytes_per_token
        window = min(longest, kv_tokens)
        if window < _SMALLEST_WINDOW:
            raise LoadFailed(
                f"model {self._info.name!r}: kv_bytes = {kv_bytes} holds {kv_tokens} tokens"
            )
        return Capacity(self._options.max_num_sequences, kv_tokens, window)

    def _runner_options(self) -> RunnerOptions:
        options = self._options
        compiled = options.compiled or self._folder.parent / FOLDER
        precision: Precision | None = "int16" if options.dtype == "int16" else None
        return RunnerOptions(
            options.runner,
            compiled,
            options.num_threads,
            precision,
            options.cuda_graphs,
            options.progress,
        )

    def _kv_bytes(self, runner: CheckedRunner) -> int:
        options = self._options
        if options.kv_bytes is not None:
            return options.kv_bytes
        num_tokens = max(options.prefill_chunk, options.prefill_alone) + options.max_num_sequences
        step = runner.step_bytes(num_tokens, options.max_num_sequences)
        needs = KvNeeds(runner.kv_layers, step, options.num_models)
        return kv_bytes_for(needs, options.free_memory)

    def _describe(self, started: Started, device: str) -> EngineInfo:
        return replace(
            self._info,
            architecture=started.facts.architecture,
            dtype=started.dtype,
            device=device,
            num_parameters=started.facts.num_parameters,
            num_bytes=started.num_bytes,
            runner=started.runner_name,
        )

    def close(self) -> None:
        """Fail what runs with `EngineClosed` and free the memory. May be called twice."""
        running, self._running = self._running, None
        if running is not None:
            running.loop.close()
            del running
            gc.collect()

    def prepare(self, request: GenerateRequest) -> PreparedRequest:
        """Tokenise and check. Raises `PromptTooLong`, `InvalidPrompt`, `InvalidSampling`,
        `EngineClosed`.

        Where the text alone is too long, the count of `PromptTooLong` is a lower bound.
        """
        running = self._alive()
        check_sampling(request)
        running.grammars.state_for(request)
        limit = request.context_length or running.window
        # What cannot fit whatever its tokens are is not worth the seconds of tokenising it.
        fewest = num_characters(request) // running.vocabulary.longest
        if fewest >= limit:
            raise PromptTooLong(fewest, limit)
        ids = encode_request(running.tokenizer, request)
        check_ids(ids, running.vocab_size)
        if len(ids) >= limit:
            raise PromptTooLong(len(ids), limit)
        max_tokens = min(request.sampling.max_tokens or limit, limit - len(ids))
        room = min(max_tokens, running.window // 2)
        seen = ids[-(running.window - room) :]
        max_tokens = min(max_tokens, running.window - len(seen))
        return PreparedRequest(request, tuple(seen), len(ids), max_tokens)

    def submit(self, prepared: PreparedRequest) -> LocalGeneration:
        """Queue it, for a reader on the running event loop. Raises `EngineDead`, `EngineClosed`.

        After a failure of the device the engine begins again here, with an empty cache, as often
        as `Restarts` allows; then `EngineDead` tells what the last failure was.
        """
        running = self._revived()
        answers: list[Answer] = []
        reader = Reader(
            took=lambda chunk: running.loop.took(answers[chunk.index], chunk.num_tokens),
            left=lambda: running.loop.cancel(answers),
        )
        n = prepared.request.n
        generation = LocalGeneration(asyncio.get_running_loop(), n, reader)
        seed = prepared.request.sampling.seed
        seed = self._options.draw_seed() if seed is None else seed
        answers.extend(
            self._answer(running, prepared, generation, (seed, index)) for index in range(n)
        )
        running.loop.submit(answers)
        return generation

    def _answer(
        self,
        running: _Running,
        prepared: PreparedRequest,
        generation: LocalGeneration,
        draw: tuple[int, int],
    ) -> Answer:
        sampling = prepared.request.sampling
        sequence = Sequence(
            prepared.token_ids,
            sampling,
            seed=draw[0],
            index=draw[1],
            run_ahead=self._options.run_ahead,
            constraint=running.grammars.state_for(prepared.request),
        )
        detokenizer = running.vocabulary.detokenizer(prepared.token_ids)
        rules = StopRules(running.end_ids, sampling.stop, prepared.max_tokens)
        calls = ToolCallText() if usable(prepared.request.tool_use) else None
        return Answer(sequence, AnswerText(detokenizer, rules), generation, calls)

    def _revived(self) -> _Running:
        running = self._alive()
        if running.loop.is_dead and self._restarts.may_begin():
            running = self._running = replace(running, loop=running.make_loop())
            running.loop.start()
        return running

    def _alive(self) -> _Running:
        if self._running is None:
            raise EngineClosed(f"engine {self._info.name!r} is not running")
        return self._running
