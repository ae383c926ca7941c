"""The engine's thread: inbox, schedule, run, postprocess. A dead device ends here, nowhere else."""

import threading
import time
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Protocol

from servemu_engine.base import Chunk, TokenLogprob
from servemu_engine.errors import AnswerFailed, EngineClosed, EngineDead, EngineStopped
from servemu_engine.generation import LocalGeneration, deliver
from servemu_engine.sampler import Sampled
from servemu_engine.scheduler import Row, Scheduler, Step
from servemu_engine.sequence import Sequence
from servemu_engine.stopping import AnswerText, Piece
from servemu_engine.tools import Spoken, ToolCallText

TokenBytes = Callable[[int], bytes]


class StepRunner(Protocol):
    """The device. `Runner`, or what a test puts in its place."""

    def run(self, step: Step) -> Items[tuple[Row, Sampled]]: ...


@dataclass(slots=True, eq=False)
class Answer:
    """One of the `n` answers of a generation."""

    sequence: Sequence
    text: AnswerText
    generation: LocalGeneration
    calls: ToolCallText | None = None
    """Set when the answer may hold a tool call."""
    num_unsent: int = field(init=False, default=0)
    """Tokens generated since the last chunk."""
    unsent_logprobs: list[TokenLogprob] = field(init=False, default_factory=list)

    def spoken(self, piece: Piece) -> Spoken:
        """Text and calls of a piece, apart."""
        if self.calls is None:
            return Spoken(piece.text, (), piece.finish_reason)
        return self.calls.push(piece.text, piece.finish_reason)


class EngineLoop:
    """Runs answers until `close` or until the device fails. Callable from any thread.

    `now`: seconds, to time steps by.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        runner: StepRunner,
        token_bytes: TokenBytes,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._scheduler = scheduler
        self._runner = runner
        self._token_bytes = token_bytes
        self._now = now
        self._answers: dict[Sequence, Answer] = {}
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._failure: Callable[[], EngineStopped] | None = None
        self._is_closing = False
        self._lock = threading.Lock()
        """Orders `submit` with the end of the loop: what got in is answered or failed."""
        self._thread = threading.Thread(target=self._serve, name="servemu-engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_dead(self) -> bool:
        """Whether the device has failed."""
        return self._failure is not None

    def submit(self, answers: Items[Answer]) -> None:
        """Queue them. Raises `EngineDead`, `EngineClosed`."""
        with self._lock:
            if self._failure is not None:
                raise self._failure()
            self._inbox.put(partial(self._add, answers))

    def took(self, answer: Answer, num_tokens: int) -> None:
        """The reader has taken a chunk of `num_tokens`; the answer may go on."""
        self._inbox.put(partial(self._acknowledge, answer, num_tokens))

    def cancel(self, answers: Items[Answer]) -> None:
        """Nobody reads them any more; their slots are free in the next step."""
        self._inbox.put(partial(self._drop, answers))

    def close(self) -> None:
        """End after the step that runs; what is unfinished fails with `EngineClosed`."""
        self._inbox.put(self._begin_closing)
        if self._thread.is_alive():
            self._thread.join()

    def _serve(self) -> None:
        try:
            while not self._is_closing:
                self._receive()
                if self._scheduler.has_work and not self._is_closing:
                    self._step()
        except Exception as error:  # the border: whatever the device raised ends this engine only
            self._stop(partial(_dead, error))
        else:
            self._stop(partial(EngineClosed, "the engine was closed"))

    def _receive(self) -> None:
        """Do what was asked since the last step; wait for it if there is nothing to run."""
        if not self._scheduler.has_work:
            self._inbox.get()()
        try:
            while True:
                self._inbox.get_nowait()()
        except Empty:
            return

    def _step(self) -> None:
        step = self._scheduler.schedule()
        began = self._now()
        sampled = self._runner.run(step)
        self._scheduler.took(step, self._now() - began)
        for row in step.rows:
            row.sequence.num_cached += row.count
        deliveries = []
        for row, token in sampled:
            answer = self._answers.get(row.sequence)
            if answer is None:  # it failed with another answer of its generation
                continue
            item = self._next_item(answer, token)
            if item is not None:
                deliveries.append((answer.generation, item))
        for generation in deliver(deliveries):
            self._drop([a for a in self._answers.values() if a.generation is generation])

    def _next_item(self, answer: Answer, sampled: Sampled) -> Chunk | AnswerFailed | None:
        """A chunk if there is one now, or why this generation, and no other, is over."""
        try:
            if sampled.is_finite:
                return self._extend(answer, sampled)
            failure = AnswerFailed("the model gave no finite numbers for this prompt")
        except Exception as error:  # the border of one answer: a detokenizer, a grammar
            failure = AnswerFailed(f"the answer broke: {type(error).__name__}: {error}")
            failure.__cause__ = error
        self._scheduler.remove(answer.sequence, broken=True)
        self._drop([a for a in self._answers.values() if a.generation is answer.generation])
        return failure

    def _extend(self, answer: Answer, sampled: Sampled) -> Chunk | None:
        """Append the token; a chunk when there is text to show, or when much is held back."""
        sequence = answer.sequence
        sequence.tokens.append(sampled.token)
        if sequence.constraint is not None:
            sequence.constraint.take(sampled.token)
        answer.num_unsent += 1
        piece = answer.text.push(sampled.token, self._logprob(sampled))
        answer.unsent_logprobs += piece.logprobs
        spoken = answer.spoken(piece)
        is_silent = not spoken.text and not spoken.tool_calls
        if spoken.finish_reason is not None:
            self._drop([answer])
        elif is_silent and answer.num_unsent < max(1, sequence.run_ahead // 2):
            return None
        num_tokens, answer.num_unsent = answer.num_unsent, 0
        logprobs, answer.unsent_logprobs = tuple(answer.unsent_logprobs), []
        end, calls = spoken.finish_reason, spoken.tool_calls
        stop = answer.text.stopped_by
        return Chunk(sequence.index, spoken.text, num_tokens, logprobs, end, calls, stop)

    def _logprob(self, sampled: Sampled) -> TokenLogprob | None:
        scores = sampled.scores
        if scores is None:
            return None
        top = tuple(self._entry(token, logprob) for token, logprob in scores.top)
        return self._entry(sampled.token, scores.logprob, top)

    def _entry(
        self, token: int, logprob: float, top: tuple[TokenLogprob, ...] = ()
    ) -> TokenLogprob:
        raw = self._token_bytes(token)
        return TokenLogprob(raw.decode("utf-8", "replace"), raw, logprob, top)

    def _add(self, answers: Items[Answer]) -> None:
        for answer in answers:
            self._answers[answer.sequence] = answer
            self._scheduler.add(answer.sequence)

    def _acknowledge(self, answer: Answer, num_tokens: int) -> None:
        answer.sequence.num_taken += num_tokens

    def _drop(self, answers: Items[Answer]) -> None:
        for answer in answers:
            self._answers.pop(answer.sequence, None)
            self._scheduler.remove(answer.sequence)

    def _begin_closing(self) -> None:
        self._is_closing = True

    def _stop(self, failure: Callable[[], EngineStopped]) -> None:
        with self._lock:
            self._failure = failure
        self._answers_still_in_the_inbox()
        generations = {answer.generation for answer in self._answers.values()}
        deliver((generation, failure()) for generation in generations)
        self._answers.clear()

    def _answers_still_in_the_inbox(self) -> None:
        try:
            while True:
                self._inbox.get_nowait()()
        except Empty:
            return


def _dead(cause: Exception) -> EngineDead:
    error = EngineDead(f"the device step failed: {type(cause).__name__}: {cause}")
    error.__cause__ = cause
    return error
