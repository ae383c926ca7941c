"""Running one request: prepare, admit, generate or embed, pay from the budget, deliver."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pydantic_core import to_json
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from servemu.aside import aside
from servemu.clock import Clock
from servemu.conversation import Asking, Conversation, Growing, Head
from servemu.errors import (
    ApiError,
    EndpointNotReady,
    InternalError,
    ModelServerUnavailable,
    RequestLimitExceeded,
    RequestTimedOut,
)
from servemu.faults.streams import streamed
from servemu.metering import Exchange, admitted, exchange_of
from servemu.schemas.answers import Asked
from servemu.schemas.chat import ChatRequest
from servemu.schemas.completions import COMPLETIONS, CompletionsRequest
from servemu.schemas.decoding import decode, refuse
from servemu.schemas.embeddings import EmbeddingsRequest
from servemu.schemas.reasoning import dialect_of
from servemu.serving import Served, world_of
from servemu.sse import Collected, Delivery, Wire, attended
from servemu.throughput.pace import Paced
from servemu_engine.base import Chunk, Engine, GenerateRequest, Generation, PreparedRequest
from servemu_engine.errors import (
    AnswerFailed,
    EngineError,
    InvalidPrompt,
    RemoteFailed,
    RemoteOverloaded,
    RequestRefused,
)

Refusal = Callable[[RequestRefused], ApiError]
"""What is answered to a prompt that the engine will not take."""
CLIENT_LEFT = 499
"""Nobody sees it but the journal; nginx's word for a client that closed the request."""


@dataclass(frozen=True, slots=True)
class Job:
    """Texts to generate and how their answer is to look."""

    served: Served
    engine: Engine
    prepared: Sequence[PreparedRequest]
    asked: Asking
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
        case "custom":
            raise refuse(f'endpoint "{served.endpoint}" serves a custom model: query /invocations')


async def answer(request: Request, served: Served, value: Mapping[str, Any]) -> Response:
    """Answer a JSON body by the task of the endpoint. Raises `ApiError`, `ClientDisconnect`."""
    wanted = await aside(request, decode_by_task, served, value)
    try:
        match wanted:
            case ChatRequest():
                return await _chat(request, served, wanted)
            case CompletionsRequest():
                return await _completions(request, served, wanted)
            case EmbeddingsRequest():
                return await _embeddings(request, served, wanted)
    except EngineError as error:
        raise _failure(served, error) from error


async def converse(request: Request, served: Served, wanted: Conversation) -> Response:
    """Answer what came by an API of its own. Raises `ApiError`."""
    try:
        return await _chat(request, served, wanted)
    except EngineError as error:
        raise _failure(served, error) from error


async def _chat(request: Request, served: Served, wanted: Conversation) -> Response:
    engine = _engine(served)
    dialect = dialect_of(served.model_type)
    asked_for = await aside(request, wanted.generate_request, served.context_length, dialect)
    wish = _seeded(request, served, asked_for)
    refusal = partial(wanted.refusal, dialect=dialect)
    [prepared] = await _prepared(request, engine, [wish], refusal)
    world = world_of(request)
    answer_id = world.dice.uuid(served.workspace, f"answer/{served.endpoint}")
    created = int(world.clock.now())
    head = Head(answer_id, served.model, created, prepared.num_prompt_tokens)
    asked = wanted.asked(head, dialect)
    deadline = world.clock.monotonic() + world.settings.request_timeout
    exchange = exchange_of(request)
    job = Job(served, engine, (prepared,), asked, wanted.stream, deadline, exchange)
    return GeneratedResponse(job, world.clock)


async def _completions(request: Request, served: Served, wanted: CompletionsRequest) -> Response:
    engine = _engine(served)
    asked_for = await aside(request, wanted.generate_requests, served.context_length)
    wishes = [_seeded(request, served, wish) for wish in asked_for]
    prepared = await _prepared(request, engine, wishes, wanted.refusal)
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
        id=world.dice.uuid(served.workspace, f"answer/{served.endpoint}"),
    )
    deadline = world.clock.monotonic() + world.settings.request_timeout
    truncate = wanted.error_behavior == "truncate"
    exchange = exchange_of(request)
    job = Job(served, engine, prepared, asked, wanted.stream, deadline, exchange, truncate)
    return GeneratedResponse(job, world.clock)


def _seeded(request: Request, served: Served, wish: GenerateRequest) -> GenerateRequest:
    """With `--seed` the draws of a request that brings no seed come again too."""
    dice = world_of(request).dice
    if dice.seed is None or wish.sampling.seed is not None:
        return wish
    seed = dice.whole(served.workspace, f"sample/{served.endpoint}")
    return replace(wish, sampling=replace(wish.sampling, seed=seed))


async def _embeddings(request: Request, served: Served, wanted: EmbeddingsRequest) -> Response:
    embedder = served.embedder
    if embedder is None:
        raise EndpointNotReady(served.endpoint)
    try:
        prepared = await aside(request, embedder.prepare_embed, wanted.embed_request(served))
    except InvalidPrompt as error:
        raise refuse(str(error)) from error

    written: list[Callable[[], None]] = []

    async def embed() -> Sequence[Sequence[float]]:
        exchange = exchange_of(request)
        async with admitted(exchange, served, prepared.num_prompt_tokens) as paying:
            paced = _paced(served, exchange)
            if paced is not None:
                await paced.first(prepared.num_prompt_tokens)
            vectors = await embedder.embed(prepared)
            written.append(paying.wrote)
            return vectors

    world = world_of(request)
    deadline = world.clock.monotonic() + world.settings.request_timeout
    vectors = await attended(embed(), request.receive, world.clock, deadline)
    body = wanted.body(served.model, vectors, prepared.num_prompt_tokens)
    response = Response(to_json(body), headers=_headers(served), media_type="application/json")
    response.background = BackgroundTask(_call, written)  # once the body has been sent
    return response


async def _call(callbacks: Sequence[Callable[[], None]]) -> None:
    for callback in callbacks:
        callback()


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
        answer = job.asked.answer()
        wire = Wire(scope, receive, send, _headers(job.served))
        delivery: Delivery = (
            streamed(wire, answer, self._clock) if job.stream else Collected(wire, answer)
        )
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
        except EngineError as error:
            await delivery.fail(_failure(job.served, error))


async def _generate(job: Job, delivery: Delivery) -> None:
    async with AsyncExitStack() as stack:
        paying = await stack.enter_async_context(
            admitted(job.exchange, job.served, job.asked.prompt_tokens)
        )
        running = [
            await stack.enter_async_context(job.engine.submit(prepared))
            for prepared in job.prepared
        ]
        pieces = await stack.enter_async_context(aclosing(interleaved(running)))
        paced = _paced(job.served, job.exchange)
        if paced is not None:
            await paced.first(job.asked.prompt_tokens)
        async for source, chunk in exact(delivery, pieces):
            await paying.pay(chunk.num_tokens)
            if paced is not None:
                await paced.token((source, chunk.index), chunk.num_tokens)
            job.exchange.tokens_out += chunk.num_tokens
            if not job.stream:
                await delivery.take(source, chunk)
                continue
            paying.sending()
            await delivery.take(source, chunk)
            paying.wrote()
    await delivery.end()
    paying.wrote()


def _paced(served: Served, exchange: Exchange) -> Paced | None:
    if served.pace is None:
        return None
    return Paced(served.pace, served.budget, exchange.clock, exchange.arrived)


async def _cut_short(answer: Growing, delivery: Delivery) -> None:
    for source, chunk in list(answer.unfinished()):
        await delivery.take(source, chunk)
    await delivery.end()


async def exact(
    delivery: Delivery, pieces: AsyncIterator[tuple[int, Chunk]]
) -> AsyncIterator[tuple[int, Chunk]]:
    """Cut where the delivery wants it, so that no token is paid that nobody gets."""
    async for source, chunk in pieces:
        for part in delivery.parts(chunk):
            yield source, part


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


async def _prepared(
    request: Request, engine: Engine, wishes: Sequence[GenerateRequest], refusal: Refusal
) -> list[PreparedRequest]:
    """In a worker thread where it may take long: grammars, and bodies of many tokens."""
    if any(wish.tool_use is not None or wish.json_answer is not None for wish in wishes):
        return await asyncio.to_thread(_prepare, engine, wishes, refusal)
    return await aside(request, _prepare, engine, wishes, refusal)


def _prepare(
    engine: Engine, wishes: Sequence[GenerateRequest], refusal: Refusal
) -> list[PreparedRequest]:
    try:
        return [engine.prepare(wish) for wish in wishes]
    except RequestRefused as error:
        raise refusal(error) from error


def _failure(served: Served, error: EngineError) -> ApiError:
    """What an engine raised while it ran, or at the end of `embed`."""
    match error:
        case RequestRefused():  # by a remote server, which may be an emulator too
            return refuse(str(error).removeprefix("Bad request: ").removesuffix("\n"))
        case RemoteOverloaded():
            return RequestLimitExceeded(str(error), error.retry_after or 1)
        case RemoteFailed():
            return ModelServerUnavailable(str(error))
        case AnswerFailed():
            return InternalError()
    return _stopped(served)


def _stopped(served: Served) -> ModelServerUnavailable:
    return ModelServerUnavailable(f"The model server of served entity '{served.entity}' stopped.")


def _headers(served: Served) -> dict[str, str]:
    return {"served-model-name": served.entity}
