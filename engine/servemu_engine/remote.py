"""Any OpenAI-compatible server (vLLM, SGLang, Ray Serve LLM, Ollama, llama.cpp) as an engine."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx

from servemu_engine.base import (
    Chunk,
    EmbedRequest,
    EngineInfo,
    GenerateRequest,
    PreparedEmbedRequest,
    PreparedRequest,
)
from servemu_engine.errors import (
    EngineClosed,
    EngineDead,
    EngineError,
    InvalidPrompt,
    LoadFailed,
    PromptTooLong,
    RemoteFailed,
    RemoteOverloaded,
)
from servemu_engine.remote_vectors import fitted
from servemu_engine.remote_wire import REFUSALS, Tally, events, is_chat, payload, reason_of
from servemu_engine.synthetic import prompt_pieces
from servemu_engine.synthetic_text import pieces, token_id

_SAMPLE = (
    "The quick brown fox jumps over the lazy dog, and 42 tokenizers disagree about internationally "
    "renowned words such as 'serendipity'; how many tokens are there in this paragraph?"
)
_TOKENIZE = ("/tokenize", "/extras/tokenize")
"""Of vLLM and llama.cpp; of llama-cpp-python."""
_START_SECONDS = 10.0
_MEASURE_SECONDS = 2.0
_NO_CHUNK = (AttributeError, KeyError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class RemoteServer:
    """Where the server is and what it is asked for."""

    url: str
    """With the version: `http://127.0.0.1:8000/v1`."""
    key: str | None = None
    model: str | None = None
    """None: the first that the server lists."""
    context_length: int = 131072
    """Tokens, where the server does not say (`max_model_len`)."""


class RemoteEngine:
    """Implements `Engine` and `Embedder` over HTTP; proxies of the environment are passed over.

    Servers count a prompt only when it has run, so `prepare` estimates: the synthetic engine's
    tokens, times a ratio that is measured at the start where the server has `/tokenize` (vLLM,
    llama.cpp). The true count comes with the last chunk (`Chunk.num_prompt_tokens`).
    """

    def __init__(self, server: RemoteServer, name: str) -> None:
        """`name`: the stand-in; asked for if the server lists a model of that name."""
        self._server = server
        self._url = server.url.rstrip("/")
        self._name = name
        self._model = server.model or name
        self._tokens_per_piece = 1.0
        self._takes_stream_options = True
        self._closed = False
        self._client: tuple[asyncio.AbstractEventLoop, httpx.AsyncClient] | None = None
        self._info = EngineInfo(
            name, "remote", "remote", "unknown", self._url, server.context_length, 0, 0, 0.0
        )

    @property
    def info(self) -> EngineInfo:
        """`device` is the server's URL, `architecture` the model it is asked for."""
        return self._info

    def start(self) -> None:
        """See that the server is there and choose its model. Raises `LoadFailed`."""
        began = time.perf_counter()
        try:
            with httpx.Client(**self._options(), timeout=_START_SECONDS) as client:
                listed = self._list_models(client.get(f"{self._url}/models"))
                self._choose(listed)
                self._tokens_per_piece = self._measure(client)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise LoadFailed(f"remote server {self._url} does not answer: {error}") from error
        own = listed.get(self._model, {}).get("max_model_len")
        self._info = EngineInfo(
            name=self._name,
            kind="remote",
            architecture=self._model,
            dtype="unknown",
            device=self._url,
            context_length=own if isinstance(own, int) else self._server.context_length,
            num_parameters=0,
            num_bytes=0,
            load_seconds=time.perf_counter() - began,
        )

    def close(self) -> None:
        """Break the connections, so that what runs fails with `EngineClosed`. Twice is fine."""
        self._closed = True
        if self._client is None:
            return
        (loop, client), self._client = self._client, None
        if loop.is_running():
            asyncio.run_coroutine_threadsafe(client.aclose(), loop)

    def prepare(self, request: GenerateRequest) -> PreparedRequest:
        """Estimate the prompt's tokens. Raises `PromptTooLong`, `InvalidPrompt`."""
        prompt = prompt_pieces(request)
        count = self._estimate(len(prompt))
        limit = request.context_length or self._info.context_length
        room = min(limit, self._info.context_length) - count
        if room < 1:
            raise PromptTooLong(count, limit)
        asked = request.sampling.max_tokens
        return PreparedRequest(
            request,
            tuple(map(token_id, prompt)),
            count,
            room if asked is None else min(asked, room),
        )

    def submit(self, prepared: PreparedRequest) -> "RemoteGeneration":
        """Ask for it once it is read. Raises `EngineClosed`; when read `InvalidPrompt`,
        `RemoteFailed`, `RemoteOverloaded`, `EngineDead`, `EngineClosed`.
        """
        self._check_open()
        return RemoteGeneration(self._generate(prepared))

    def prepare_embed(self, request: EmbedRequest) -> PreparedEmbedRequest:
        """Cut each text to the context, by estimate. Raises `InvalidPrompt`."""
        if not request.texts:
            raise InvalidPrompt("there is no text to embed")
        limit = request.context_length or self._info.context_length
        most = max(1, int(limit / self._tokens_per_piece))
        ids = tuple(tuple(map(token_id, pieces(text)[:most])) for text in request.texts)
        return PreparedEmbedRequest(request, ids, sum(self._estimate(len(one)) for one in ids))

    async def embed(self, prepared: PreparedEmbedRequest) -> Sequence[Sequence[float]]:
        """Vectors in the played model's dimension and norm. Raises as a generation does."""
        request = prepared.request
        texts = [
            "".join(pieces(text)[: len(ids)])
            for text, ids in zip(request.texts, prepared.token_ids, strict=True)
        ]
        body = {"model": self._model, "input": texts}
        self._check_open()
        try:
            answer = await self._connected().post(f"{self._url}/embeddings", json=body)
        except (httpx.HTTPError, RuntimeError) as error:
            raise self._broken(error) from error
        if answer.status_code != 200:
            raise _failure(answer)
        try:
            rows = sorted(_body(answer)["data"], key=lambda row: row["index"])
            vectors = [list(map(float, row["embedding"])) for row in rows]
        except _NO_CHUNK as error:
            raise RemoteFailed(f"remote server {self._url} sent no vectors: {error}") from error
        if len(vectors) != len(texts) or not all(vectors):
            told = f"{len(vectors)} vectors for {len(texts)} texts, or empty ones"
            raise RemoteFailed(f"remote server {self._url} sent {told}")
        return [fitted(vector, request.dimensions, request.normalize) for vector in vectors]

    async def _generate(self, prepared: PreparedRequest) -> AsyncIterator[Chunk]:
        """Servers that know no `n` give one answer at a time: the rest is asked for again."""
        first = 0
        while first < prepared.request.n:
            tally = Tally(prepared.request.sampling.stop, first)
            async with aclosing(self._ask(prepared, first)) as told:
                async for event in told:
                    for chunk in _taken(tally, event, prepared.request.n):
                        yield chunk
            for chunk in tally.end():
                yield chunk
            first += tally.num_ended

    async def _ask(self, prepared: PreparedRequest, first: int) -> AsyncGenerator[dict[str, Any]]:
        body = payload(prepared, self._model, first)
        path = "chat/completions" if is_chat(prepared.request) else "completions"
        url = f"{self._url}/{path}"
        try:
            while True:
                if self._takes_stream_options:
                    body["stream_options"] = {"include_usage": True}
                async with self._connected().stream("POST", url, json=body) as answer:
                    if answer.status_code == 200:
                        async for event in events(answer.aiter_bytes()):
                            yield event
                        return
                    await answer.aread()
                    if not self._may_go_without(body, answer):
                        raise _failure(answer)
        except (httpx.HTTPError, httpx.StreamError, RuntimeError) as error:
            raise self._broken(error) from error

    def _may_go_without(self, body: dict[str, Any], answer: httpx.Response) -> bool:
        """Some servers, such as the emulated service, refuse a field that only asks for usage."""
        if "stream_options" not in body or "stream_options" not in answer.text:
            return False
        self._takes_stream_options = False
        del body["stream_options"]
        return True

    def _broken(self, error: Exception) -> EngineError:
        if self._closed:
            return EngineClosed(f"engine {self._name!r} is closed")
        reason = str(error) or type(error).__name__
        return EngineDead(f"remote server {self._url} broke off: {reason}")

    def _check_open(self) -> None:
        if self._closed:
            raise EngineClosed(f"engine {self._name!r} is closed")

    def _connected(self) -> httpx.AsyncClient:
        """The client of the running event loop; its connections cannot be used on another."""
        self._check_open()
        loop = asyncio.get_running_loop()
        if self._client is None or self._client[0] is not loop:
            timeout = httpx.Timeout(None, connect=_START_SECONDS)
            limits = httpx.Limits(max_connections=None)
            client = httpx.AsyncClient(**self._options(), timeout=timeout, limits=limits)
            self._client = loop, client
        return self._client[1]

    def _options(self) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._server.key}"} if self._server.key else {}
        # Reading certificates takes 50 ms, for nothing where nobody speaks TLS.
        is_tls = self._url.startswith("https:")
        return {"headers": headers, "trust_env": False, "verify": is_tls}

    def _list_models(self, answer: httpx.Response) -> dict[str, dict[str, Any]]:
        """By id. A server without the route lists none; where the model is set, the route may fail
        (`transformers serve` has it answer 500 without a cache folder).
        """
        is_needed = self._server.model is None and answer.status_code >= 500
        if answer.status_code in (401, 403) or is_needed:
            raise LoadFailed(
                f"remote server {self._url} answered {answer.status_code}: "
                f"{reason_of(_body(answer))}"
            )
        rows = _body(answer).get("data") if answer.status_code == 200 else None
        listed = rows if isinstance(rows, list) else []
        return {row["id"]: row for row in listed if isinstance(row, dict) and "id" in row}

    def _choose(self, listed: dict[str, dict[str, Any]]) -> None:
        if self._name in listed:
            self._model = self._name
        elif self._server.model is not None:
            self._model = self._server.model
        elif listed:
            self._model = next(iter(listed))
        else:
            raise LoadFailed(f"remote server {self._url} lists no models: set remote_model")

    def _measure(self, client: httpx.Client) -> float:
        """Tokens of the server for one of ours; 1 where it cannot be asked."""
        root = self._url.removesuffix("/v1")
        body = {"model": self._model, "prompt": _SAMPLE, "content": _SAMPLE, "input": _SAMPLE}
        for path in _TOKENIZE:
            try:
                answer = client.post(f"{root}{path}", json=body, timeout=_MEASURE_SECONDS)
            except httpx.HTTPError:  # it is there, but does not know what this is
                return 1.0
            tokens = _body(answer).get("tokens") if answer.status_code == 200 else None
            if isinstance(tokens, list) and tokens:
                return len(tokens) / len(pieces(_SAMPLE))
        return 1.0

    def _estimate(self, num_pieces: int) -> int:
        return math.ceil(num_pieces * self._tokens_per_piece)


class RemoteGeneration:
    """A running answer. Leaving closes its connection, which is what cancels it over there."""

    def __init__(self, chunks: AsyncIterator[Chunk]) -> None:
        self._chunks = chunks

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        return await anext(self._chunks)

    async def __aenter__(self) -> "RemoteGeneration":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._chunks.aclose()  # type: ignore[attr-defined]


def _taken(tally: Tally, event: dict[str, Any], n: int) -> list[Chunk]:
    """The chunks of an event. Raises `RemoteFailed` where it is none."""
    try:
        chunks = list(tally.take(event))
    except _NO_CHUNK as error:
        reason = f"{type(error).__name__}: {error}"
        raise RemoteFailed(f"remote server sent what is no chunk: {reason}") from error
    if not all(0 <= chunk.index < n for chunk in chunks):
        raise RemoteFailed(f"remote server sent an answer that is none of the {n} asked for")
    return chunks


def _body(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        body = answer.text
    return body if isinstance(body, dict) else {"message": str(body)}


def _failure(answer: httpx.Response) -> EngineError:
    reason = reason_of(_body(answer))
    if answer.status_code in REFUSALS:
        return InvalidPrompt(reason)
    message = f"remote server answered {answer.status_code}: {reason}"
    if answer.status_code == 429:
        seconds = answer.headers.get("retry-after", "")
        return RemoteOverloaded(message, int(seconds) if seconds.isdecimal() else None)
    return RemoteFailed(message)
