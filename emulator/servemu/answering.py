"""Running one request: prepare, admit, generate or embed, pay from the budget, deliver."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from servemu.clock import Clock
from servemu.errors import EndpointNotReady, ModelServerUnavailable, RequestTimedOut
from servemu.metering import Exchange, admitted, exchange_of
from servemu.schemas.answers import Answer, Asked
from servemu.schemas.chat import CHAT, ChatRequest
from servemu.schemas.completions import COMPLETIONS, CompletionsRequest
from servemu.schemas.decoding import decode, refuse
from servemu.schemas.embeddings import EmbeddingsRequest
from servemu.serving import Served, world_of
from servemu.sse import Delivery, Wire, attended, delivery_for
from servemu_engine.base import Chunk, Engine, GenerateRequest, Generation, PreparedRequest
from servemu_engine.errors import EngineStopped, InvalidPrompt, PromptTooLong

CLIENT_LEFT = 499
"""Nobody sees it but the journal; nginx's word for a client that closed the request."""


@dataclass(frozen=True, slots=True)
class Job:
    """Texts to generate and how their answer is to look."""

    served: Served
    engine: Engine
    prepared: Sequence[PreparedRequest]
    asked: Asked
    stream: bool
    deadline: float
    """Monotonic seconds."""
    exchange: Exchange
    truncate: bool = False
    """When the time is over, the texts end where they are."""


def decode_by_task(
    served: Served, value: Mapping[str, Any]
) -> ChatRequest | CompletionsRequest | EmbeddingsRequest:
    """The body as the endpoint's task has it. Raises `BadRequest`."""
    match served.task:
        case "llm/v1/chat":
            return decode(ChatRequest, value)
        case "llm/v1/completions":
            return decode(CompletionsRequest, value)
        case "llm/v1/embeddings":
            return decode(EmbeddingsRequest, value)


async def answer(request: Request, served: Served, value: Mapping[str, Any]) -> Response:
    """Answer a JSON body by the task of the endpoint. Raises `ApiError`, `ClientDisconnect`."""
    wanted = decode_by_task(served, value)
    try:
        match wanted:
            case ChatRequest():
                return _chat(request, served, wanted)
            case CompletionsRequest():
                return _completions(request, served, wanted)
            case EmbeddingsRequest():
                return await _embeddings(request, served, wanted)
    except EngineStopped as error:
        raise _stopped(served) from error


def _chat(request: Request, served: Served, wanted: ChatRequest) -> Response:
    engine = _engine(served)
    prepared = _prepare(engine, wanted.generate_request(served.context_length))
    world = world_of(request)
    asked = Asked(
        CHAT, served.model, int(world.clock.now()), prepared.num_prompt_tokens, n=wanted.n
    )
    deadline = world.clock.monotonic() + world.settings.request_timeout
    exchange = exchange_of(request)
    job = Job(served, engine, (prepared,), asked, wanted.stream, deadline, exchange)
    return GeneratedResponse(job, world.clock)


def _completions(request: Request, served: Served, wanted: CompletionsRequest) -> Response:
    engine = _engine(served)
    requests = wanted.generate_requests(served.context_length)
    prepared = [_prepare(engine, one) for one in requests]
    wanted.check_context([one.num_prompt_tokens for one in prepared], served.context_length)
    world = world_of(request)
    asked = Asked(
        COMPLETIONS,
        served.model,
        int(world.clock.now()),
        sum(one.num_prompt_tokens for one in prepared),
        n=wanted.n,
        echoes=wanted.prompt if wanted.echo else [""] * len(wanted.prompt),
        suffix=wanted.suffix,
    )
    deadline = world.clock.monotonic() + world.settings.request_timeout
    truncate = wanted.error_behavior == "truncate"
    exchange = exchange_of(request)
    job = Job(served, engine, prepared, asked, wanted.stream, deadline, exchange, truncate)
    return GeneratedResponse(job, world.clock)


async def _embeddings(request: Request, served: Served, wanted: EmbeddingsRequest) -> Response:
    embedder = served.embedder
    if embedder is None:
        raise EndpointNotReady(served.endpoint)
    try:
        prepared = embedder.prepare_embed(wanted.embed_request(served))
    except InvalidPrompt as error:
        raise refuse(str(error)) from error

    async def embed() -> Sequence[Sequence[float]]:
        async with admitted(exchange_of(request), served, prepared.num_prompt_tokens):
            return await embedder.embed(prepared)

    world = world_of(request)
    deadline = world.clock.monotonic() + world.settings.request_timeout
    vectors = await attended(embed(), request.receive, world.clock, deadline)
    body = wanted.body(served.model, vectors, prepared.num_prompt_tokens)
    return Response(to_json(body), headers=_headers(served), media_type="application/json")


class GeneratedResponse(Response):
    """Generates while it is being sent, so that whatever ends the sending ends the generation.

    What is raised before the first byte becomes the status, also of a stream.
    """

    def __init__(self, job: Job, clock: Clock) -> None:
        super().__init__()
        self._job = job
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        job = self._job
        answer = Answer(job.asked)
        wire = Wire(scope, receive, send, _headers(job.served))
        delivery = delivery_for(wire, answer, stream=job.stream)
        try:
            await attended(_generate(job, delivery), receive, self._clock, job.deadline)
        except ClientDisconnect:
            if not delivery.started:
                await Response(status_code=CLIENT_LEFT)(scope, receive, send)
        except RequestTimedOut as error:
            if not job.truncate:
                await delivery.fail(error)
            else:
                await _cut_short(answer, delivery)
        except EngineStopped:
            await delivery.fail(_stopped(job.served))


async def _generate(job: Job, delivery: Delivery) -> None:
    budget = job.served.budget
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(admitted(job.exchange, job.served, job.asked.prompt_tokens))
        running = [
            await stack.enter_async_context(job.engine.submit(prepared))
            for prepared in job.prepared
        ]
        pieces = await stack.enter_async_context(aclosing(interleaved(running)))
        async for source, chunk in pieces:
            await budget.take(chunk.num_tokens)
            job.exchange.tokens_out += chunk.num_tokens
            await delivery.take(source, chunk)
    await delivery.end()


async def _cut_short(answer: Answer, delivery: Delivery) -> None:
    for source, chunk in list(answer.unfinished()):
        await delivery.take(source, chunk)
    await delivery.end()


async def interleaved(generations: Sequence[Generation]) -> AsyncGenerator[tuple[int, Chunk]]:
    """The chunks of all as they come, each with the number of its generation."""
    if len(generations) == 1:
        async for chunk in generations[0]:
            yield 0, chunk
        return
    iterators = [aiter(generation) for generation in generations]
    pending = {asyncio.ensure_future(_next(it)): number for number, it in enumerate(iterators)}
    try:
        while pending:
            done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                number = pending.pop(task)
                if (piece := task.result()) is not None:
                    pending[asyncio.ensure_future(_next(iterators[number]))] = number
                    yield number, piece
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def _next(chunks: AsyncIterator[Chunk]) -> Chunk | None:
    return await anext(chunks, None)


def _engine(served: Served) -> Engine:
    if served.engine is None:
        raise EndpointNotReady(served.endpoint)
    return served.engine


def _prepare(engine: Engine, request: GenerateRequest) -> PreparedRequest:
    try:
        return engine.prepare(request)
    except PromptTooLong as error:
        # The beginning is LIVE, the rest a GUESS (facts/data_plane §2.5).
        raise refuse(
            f"prompt token count ({error.num_tokens}) cannot exceed {error.limit}. "
            "Please reduce the length of your prompt."
        ) from error
    except InvalidPrompt as error:
        raise refuse(str(error)) from error


def _stopped(served: Served) -> ModelServerUnavailable:
    return ModelServerUnavailable(f"The model server of served entity '{served.entity}' stopped.")


def _headers(served: Served) -> dict[str, str]:
    return {"served-model-name": served.entity}
