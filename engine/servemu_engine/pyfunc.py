"""The engine behind custom models: predictions that are made up, but of the declared schema.

A prediction follows from its row and the parameters alone, in every process. It means nothing.
"""

import base64
import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from random import Random

from servemu_engine.base import (
    Chunk,
    EngineInfo,
    GenerateRequest,
    JsonSchema,
    PreparedRequest,
)
from servemu_engine.errors import EngineClosed
from servemu_engine.synthetic_generation import SyntheticGeneration

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]

_UNBOUNDED = 2**31 - 1
_EPOCH = datetime.datetime(2024, 1, 1)
_WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta")


class PyfuncEngine:
    """Answers a prompt that is JSON, `{"inputs": [row, …], "params": {…}}`, with a JSON list of one
    prediction a row. `json_answer.schema` is that of one prediction. Implements `Engine`.
    """

    def __init__(self, name: str = "pyfunc") -> None:
        self._name = name
        self._is_closed = False

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(
            name=self._name,
            kind="synthetic",
            architecture="pyfunc",
            dtype="none",
            device="none",
            context_length=_UNBOUNDED,
            num_parameters=0,
            num_bytes=0,
            load_seconds=0.0,
        )

    def start(self) -> None:
        """Nothing to load."""

    def close(self) -> None:
        """May be called twice."""
        self._is_closed = True

    def prepare(self, request: GenerateRequest) -> PreparedRequest:
        """There are no tokens to count."""
        return PreparedRequest(request, (), 0, _UNBOUNDED)

    def submit(self, prepared: PreparedRequest) -> SyntheticGeneration:
        """All predictions in one chunk. Raises `EngineClosed`."""
        self._check_open()
        answer = prepared.request.json_answer
        schema = None if answer is None else answer.schema
        asked = json.loads(prepared.request.prompt)
        params = asked.get("params", {})
        predictions = [predict(row, params, schema or {}) for row in asked["inputs"]]
        chunk = Chunk(0, json.dumps(predictions), 0, finish_reason="stop")
        return SyntheticGeneration(self._check_open, [iter([chunk])])

    def _check_open(self) -> None:
        if self._is_closed:
            raise EngineClosed(f"engine {self._name!r} is closed")


def predict(row: Json, params: Mapping[str, Json], schema: JsonSchema) -> Json:
    """Something that the schema admits: numbers from 0 to 1, whole ones from 0 to 9."""
    seed = json.dumps([row, params], sort_keys=True)
    properties = schema.get("properties")
    if properties is None:
        return _value(seed, schema)
    return {name: _value(f"{seed} {name}", inner) for name, inner in properties.items()}


def _value(seed: str, schema: JsonSchema) -> Json:
    rng = Random(hashlib.blake2b(seed.encode(), digest_size=8).digest())
    match schema.get("type", "number"), schema.get("format", ""):
        case "boolean", _:
            return rng.random() < 0.5
        case "integer", _:
            return rng.randrange(10)
        case "string", "date-time":
            return (_EPOCH + datetime.timedelta(seconds=rng.randrange(10**7))).isoformat()
        case "string", "byte":
            return base64.b64encode(rng.randbytes(6)).decode()
        case "string", _:
            return rng.choice(_WORDS)
    return round(rng.random(), 6)
