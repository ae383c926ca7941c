"""Queries of custom models: rows in, predictions out, by the same way as texts."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from servemu.answering import GeneratedResponse, Job
from servemu.aside import aside
from servemu.catalog.signatures import Signature
from servemu.conversation import Payload
from servemu.errors import ApiError, EndpointNotReady
from servemu.metering import exchange_of
from servemu.schemas.predictions import prediction_schema, read_inputs
from servemu.serving import Served, world_of
from servemu_engine.base import Chunk, GenerateRequest, JsonAnswer


async def predict(request: Request, served: Served, body: bytes) -> Response:
    """Answer a body by the model's signature (facts/data_plane §4). Raises `ApiError`.

    The predictions are made up: they follow from the row, and have the declared types. A scripted
    reply takes their place: its text is the JSON of `predictions`.
    """
    if served.engine is None:
        raise EndpointNotReady(served.endpoint)
    signature = served.signature or Signature()
    asked = await aside(request, read_inputs, body, signature)
    wish = GenerateRequest(
        prompt=asked.prompt(), json_answer=JsonAnswer(prediction_schema(signature))
    )
    world = world_of(request)
    deadline = world.clock.monotonic() + world.settings.request_timeout
    prepared = (await aside(request, served.engine.prepare, wish),)
    exchange = exchange_of(request)
    job = Job(served, served.engine, prepared, Predictions(), False, deadline, exchange)
    return GeneratedResponse(job, world.clock)


@dataclass(frozen=True, slots=True)
class Predictions:
    """There are no tokens in them."""

    prompt_tokens: int = 0

    def answer(self) -> "PredictionsAnswer":
        """An empty one."""
        return PredictionsAnswer()


class PredictionsAnswer:
    """`{"predictions": …}`; never streamed."""

    def __init__(self) -> None:
        self._text = ""

    def add(self, source: int, chunk: Chunk) -> None:
        """Keep a chunk for `body`."""
        self._text += chunk.text

    def body(self) -> Payload:
        """A scripted text that is no JSON is itself the prediction."""
        try:
            return {"predictions": json.loads(self._text)}
        except ValueError:
            return {"predictions": self._text}

    def events(self, source: int, chunk: Chunk) -> Iterator[Payload]:
        """None."""
        self.add(source, chunk)
        return iter(())

    def unfinished(self) -> Iterator[tuple[int, Chunk]]:
        """None: predictions come as one."""
        return iter(())

    def closing(self) -> Payload:
        """The whole answer."""
        return self.body()

    def failure(self, error: ApiError) -> Payload:
        """An event like an error body."""
        return {"error_code": error.error_code, "message": error.message}
