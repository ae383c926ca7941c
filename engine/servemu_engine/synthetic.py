"""An engine and embedder without a model: instant, deterministic, no torch."""

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from servemu_engine.base import (
    Chunk,
    EmbedRequest,
    EngineInfo,
    GenerateRequest,
    Message,
    PreparedEmbedRequest,
    PreparedRequest,
)
from servemu_engine.errors import EngineClosed, InvalidPrompt, PromptTooLong
from servemu_engine.scripted import answer
from servemu_engine.synthetic_generation import Plan, SyntheticGeneration, chunks
from servemu_engine.synthetic_json import check, script_of
from servemu_engine.synthetic_text import (
    LONGEST_PIECE,
    pieces,
    reply,
    token_id,
    topic_of,
    unit,
    vector,
)
from servemu_engine.tools import spelled_out, usable

_SHORTEST_REPLY = 16
_FRAME = ("<|start|>", "<|end|>")
"""What an encoder puts around each text; counted and billed like words."""
_DIMENSIONS = 384


@dataclass(frozen=True, slots=True)
class Replies:
    """How the synthetic engine answers."""

    tokens_per_chunk: int = 1
    """Tokens in a chunk; the last one may have fewer."""
    mean_tokens: int | None = 96
    """Average length at which an answer ends by itself; None: only at `max_tokens`."""


_DEFAULT_REPLIES = Replies()


class SyntheticEngine:
    """Plausible English and hashed vectors. Implements `Engine` and `Embedder`.

    Tokens are words and marks (`synthetic_text.pieces`). The same request gives the same text, in
    every process: it follows from prompt and seed (none is a seed too), at temperature 0 from the
    prompt alone. It is written as it is read, so a reader that stands still costs nothing.
    """

    def __init__(
        self,
        name: str,
        *,
        context_length: int = 131072,
        replies: Replies = _DEFAULT_REPLIES,
    ) -> None:
        self._name = name
        self._context_length = context_length
        self._replies = replies
        self._closed = False

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(
            name=self._name,
            kind="synthetic",
            architecture="synthetic",
            dtype="none",
            device="none",
            context_length=self._context_length,
            num_parameters=0,
            num_bytes=0,
            load_seconds=0.0,
        )

    def start(self) -> None:
        """Nothing to load."""

    def close(self) -> None:
        """Fail what runs, at its next chunk, with `EngineClosed`. May be called twice."""
        self._closed = True

    def prepare(self, request: GenerateRequest) -> PreparedRequest:
        """Count the prompt's tokens. Raises `PromptTooLong`, `InvalidPrompt`.

        Where the text alone is too long, the count of `PromptTooLong` is a lower bound.
        """
        check(request)
        limit = request.context_length or self._context_length
        # The rest of the process stands still while a text is cut into tokens: 0.2 s for 4 MB.
        size = len(request.prompt) + sum(len(message.content) for message in request.messages)
        fewest = size // LONGEST_PIECE
        if fewest >= limit:
            raise PromptTooLong(fewest, limit)
        prompt = prompt_pieces(request)
        room = limit - len(prompt)
        if room < 1:
            raise PromptTooLong(len(prompt), limit)
        asked = request.sampling.max_tokens
        return PreparedRequest(
            request,
            tuple(map(token_id, prompt[-self._context_length :])),
            len(prompt),
            room if asked is None else min(asked, room),
        )

    def submit(self, prepared: PreparedRequest) -> SyntheticGeneration:
        """Start an answer. Raises `EngineClosed`."""
        self.check_open()
        indices = range(prepared.request.n)
        answers = [self._answer(prepared, index) for index in indices]
        return SyntheticGeneration(self.check_open, answers)

    def prepare_embed(self, request: EmbedRequest) -> PreparedEmbedRequest:
        """Cut each text to the context and count it. Raises `InvalidPrompt`."""
        if not request.texts:
            raise InvalidPrompt("there is no text to embed")
        limit = request.context_length or self._context_length
        ids = tuple(tuple(map(token_id, _framed(text, limit))) for text in request.texts)
        return PreparedEmbedRequest(request, ids, sum(map(len, ids)))

    async def embed(self, prepared: PreparedEmbedRequest) -> Sequence[Sequence[float]]:
        """Vectors `[text, dimension]`, 384 wide unless asked otherwise. Raises `EngineClosed`."""
        request = prepared.request
        vectors = []
        for text, ids in zip(request.texts, prepared.token_ids, strict=True):
            self.check_open()
            words = pieces(text)[: len(ids) - len(_FRAME)]
            values = vector(words, request.dimensions or _DIMENSIONS)
            vectors.append(unit(values) if request.normalize else values)
            await asyncio.sleep(0)  # a long batch is pure computing: give others a turn
        return vectors

    def check_open(self) -> None:
        """Raises `EngineClosed` after `close`."""
        if self._closed:
            raise EngineClosed(f"engine {self._name!r} is closed")

    def _answer(self, prepared: PreparedRequest, index: int) -> Iterator[Chunk]:
        sampling = prepared.request.sampling
        draw = f"{self._name} {_fingerprint(prepared.request)}"
        if sampling.temperature > 0:
            draw += f" {sampling.seed} {index}"
        topic = topic_of(_question(prepared.request))
        script = script_of(prepared.request, topic, Random(draw))
        if script is not None:
            return answer(prepared, script, index)
        plan = Plan(index, prepared.max_tokens, sampling, self._replies.tokens_per_chunk)
        return chunks(plan, _tokens(topic, self._replies.mean_tokens, Random(draw)))


def prompt_pieces(request: GenerateRequest) -> list[str]:
    """The prompt in tokens, with a mark around each turn. Raises `InvalidPrompt`."""
    if bool(request.messages) == bool(request.prompt):
        raise InvalidPrompt("exactly one of messages and prompt must be given and not be empty")
    if request.prompt and not request.use_chat_template:
        return pieces(request.prompt)
    prompt = []
    turns = spelled_out(request.messages, usable(request.tool_use))
    for message in turns or (Message("user", request.prompt),):
        prompt += [f"<|{message.role}|>", *pieces(message.content), "<|end|>"]
    return [*prompt, "<|assistant|>"]


def _question(request: GenerateRequest) -> str:
    asked = [m.content for m in request.messages if m.role == "user"]
    return asked[-1] if asked else request.prompt


def _fingerprint(request: GenerateRequest) -> str:
    parts = [request.prompt, str(request.use_chat_template)]
    parts += [f"{m.role}\0{m.content}" for m in request.messages]
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _framed(text: str, limit: int) -> list[str]:
    words = pieces(text)[: max(limit - len(_FRAME), 0)]
    return [_FRAME[0], *words, _FRAME[1]]


def _tokens(topic: str, mean: int | None, rng: Random) -> Iterator[tuple[str, bool]]:
    """The answer's tokens, each with whether the answer ends there by itself."""
    spread = 0 if mean is None else max(mean - _SHORTEST_REPLY, 0)
    own_length = _SHORTEST_REPLY + rng.randint(0, 2 * spread)
    written = 0
    for sentence in reply(topic, rng):
        written += len(sentence)
        is_last = mean is not None and written >= own_length
        for piece in sentence[:-1]:
            yield piece, False
        yield sentence[-1], is_last
        if is_last:
            return
