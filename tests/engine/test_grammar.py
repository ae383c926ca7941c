"""Constrained answers: whatever the model prefers, they validate, and they end."""

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from tests.generated import chunks_of, text_of

from servemu_engine.base import Chunk, GenerateRequest, JsonAnswer, Message, Sampling, Tool, ToolUse
from servemu_engine.errors import AnswerFailed, InvalidPrompt
from servemu_engine.grammar import lark_of
from servemu_engine.json_schema import Bounds
from servemu_engine.local import LocalEngine, LocalOptions
from servemu_engine.sampler import Draw, sample
from servemu_engine.synthetic import SyntheticEngine

pytestmark = pytest.mark.anyio

NUM_SCHEMAS = 200
SCALARS = ("string", "integer", "number", "boolean", "null")
WEATHER = Tool(
    "get_weather",
    "The weather of a city",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
)
CLOCK = Tool("now", "The time")
ASK = (Message("user", "What is the weather in Bern?"),)


def random_schema(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    """Any schema of the subset, up to three deep."""
    kinds = [*SCALARS, "enum", "const", "nullable"]
    if depth < 2:
        kinds += ["object", "object", "array"]
    kind = "object" if depth == 0 else rng.choice(kinds)
    match kind:
        case "enum":
            values = [1, -2.5, "a", 'q"\\\n', "é", None, True, [1, "x"], {"k": 1}]
            return {"enum": rng.sample(values, rng.randint(1, 4))}
        case "const":
            return {"const": rng.choice(["x", 3, None])}
        case "nullable":
            return {"type": [rng.choice(SCALARS[:4]), "null"]}
        case "array":
            return {"type": "array", "items": random_schema(rng, depth + 1)}
        case "object":
            return _random_object(rng, depth)
    return {"type": kind, "description": "a value"}


def _random_object(rng: random.Random, depth: int) -> dict[str, Any]:
    names = rng.sample(["a", "b c", "naïve", 'q"t', "x_1", "ein/zwei"], rng.randint(1, 3))
    properties = {name: random_schema(rng, depth + 1) for name in names}
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    schema["required"] = rng.sample(names, rng.randint(0, len(names)))
    if rng.random() < 0.5:
        schema["additionalProperties"] = False
    return schema


@pytest.fixture(scope="module")
def engine(byte_llama: Callable[..., Path]) -> Iterator[LocalEngine]:
    """A random model over single bytes: the harshest judge, it never closes anything by itself."""
    folder = byte_llama(
        "tiny-llama-grammar",
        seed=3,
        hidden_size=16,
        intermediate_size=16,
        max_position_embeddings=16384,
    )
    options = LocalOptions(
        device="cpu", max_num_sequences=64, num_threads=1, draw_seed=lambda: 7, run_ahead=256
    )
    engine = LocalEngine(folder, "tiny", options)
    engine.start()
    yield engine
    engine.close()


def call_in(chunks: list[Chunk]) -> tuple[str, str, Any]:
    """Id, name and arguments of the only call, which must have come as a stream may have it."""
    deltas = [delta for chunk in chunks for delta in chunk.tool_calls]
    assert [delta.index for delta in deltas] == [0] * len(deltas)
    assert all((delta.id, delta.name) == ("", "") for delta in deltas[1:])
    arguments = "".join(delta.arguments for delta in deltas)
    return deltas[0].id, deltas[0].name, json.loads(arguments)


async def test_two_hundred_random_schemas_are_all_kept(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Bounds(characters=20, items=3, open_properties=2)
    monkeypatch.setattr("servemu_engine.grammar.lark_of", partial(lark_of, bounds=short))
    schemas = [random_schema(random.Random(seed)) for seed in range(NUM_SCHEMAS)]

    async def answer(schema: dict[str, Any]) -> list[Chunk]:
        return await chunks_of(engine, GenerateRequest(ASK, json_answer=JsonAnswer(schema)))

    answers = await asyncio.gather(*(answer(schema) for schema in schemas))
    for schema, chunks in zip(schemas, answers, strict=True):
        assert chunks[-1].finish_reason == "stop"
        jsonschema.validate(json.loads(text_of(chunks)), schema)


async def test_synthetic_answers_keep_two_hundred_random_schemas() -> None:
    engine = SyntheticEngine("m")
    for seed in range(NUM_SCHEMAS):
        schema = random_schema(random.Random(seed))
        chunks = await chunks_of(engine, GenerateRequest(ASK, json_answer=JsonAnswer(schema)))
        assert chunks[-1].finish_reason == "stop"
        jsonschema.validate(json.loads(text_of(chunks)), schema)


@pytest.mark.parametrize("schema", [None, {"type": "object"}, {"type": "array"}, {}])
async def test_schema_that_leaves_all_open_still_ends(
    engine: LocalEngine, schema: dict[str, Any] | None
) -> None:
    chunks = await chunks_of(engine, GenerateRequest(ASK, json_answer=JsonAnswer(schema)))
    assert chunks[-1].finish_reason == "stop"
    jsonschema.validate(json.loads(text_of(chunks)), schema or {"type": "object"})


async def test_max_tokens_cut_the_json(engine: LocalEngine) -> None:
    request = GenerateRequest(
        ASK, sampling=Sampling(max_tokens=5), json_answer=JsonAnswer({"const": "abcdefghij"})
    )
    chunks = await chunks_of(engine, request)
    assert (text_of(chunks), chunks[-1].finish_reason) == ('"abcd', "length")


@pytest.mark.parametrize("name", ["", "now"])
async def test_required_call_has_arguments_of_the_schema(engine: LocalEngine, name: str) -> None:
    use = ToolUse((WEATHER, CLOCK), "required", name)
    for seed in range(4):
        request = GenerateRequest(ASK, sampling=Sampling(seed=seed), tool_use=use)
        chunks = await chunks_of(engine, request)
        id, called, arguments = call_in(chunks)
        assert id.startswith("call_")
        assert called in ({name} if name else {"get_weather", "now"})
        tool = WEATHER if called == "get_weather" else CLOCK
        jsonschema.validate(arguments, dict(tool.parameters))
        assert (text_of(chunks), chunks[-1].finish_reason) == ("", "tool_calls")


@pytest.mark.parametrize("choice", ["auto", "none"])
async def test_text_is_free_where_no_call_is_required(engine: LocalEngine, choice: Any) -> None:
    sampling = Sampling(max_tokens=30)
    use = ToolUse((WEATHER,), choice)
    chunks = await chunks_of(engine, GenerateRequest(ASK, sampling=sampling, tool_use=use))
    assert text_of(chunks)
    assert chunks[-1].finish_reason in ("stop", "length")
    assert not any(chunk.tool_calls for chunk in chunks)


async def test_synthetic_call_result_and_answer() -> None:
    engine = SyntheticEngine("m")
    use = ToolUse((CLOCK, WEATHER))
    chunks = await chunks_of(engine, GenerateRequest(ASK, tool_use=use))
    _, name, arguments = call_in(chunks)
    assert (name, chunks[-1].finish_reason) == ("get_weather", "tool_calls")
    jsonschema.validate(arguments, dict(WEATHER.parameters))
    result = Message("tool", "sunny", tool_call_id="c")
    after = await chunks_of(engine, GenerateRequest((*ASK, result), tool_use=use))
    assert text_of(after)
    assert after[-1].finish_reason == "stop"


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"type": "string", "enum": [1]}, "enum"),
        ({"type": "string", "const": 1}, "const"),
        ({"const": 1, "enum": [True, 2]}, "enum"),
        ({"type": "object", "required": ["a"], "enum": [{"b": 1}]}, "enum"),
        ({"properties": {"a": {"type": "null"}}, "const": {"a": 1}}, "const"),
        ({"additionalProperties": False, "const": {"a": 1}}, "const"),
        ({"items": {"type": "null"}, "const": [None, 1]}, "const"),
    ],
)
async def test_schema_that_admits_nothing_is_refused(
    engine: LocalEngine, schema: dict[str, Any], keyword: str
) -> None:
    for one in (engine, SyntheticEngine("m")):
        with pytest.raises(InvalidPrompt, match=f"no value of the {keyword} has the type"):
            one.prepare(GenerateRequest(ASK, json_answer=JsonAnswer(schema)))


@pytest.mark.parametrize(
    "schema",
    [
        {"required": ["a"]},
        {"additionalProperties": False},
        {"items": {"type": "boolean"}},
        {"enum": [1, 2, {"a": 1}], "const": 2},
        {"type": "object", "required": ["a"], "enum": [{}, {"a": None}]},
    ],
)
async def test_schema_without_a_type_is_kept(engine: LocalEngine, schema: dict[str, Any]) -> None:
    for one in (engine, SyntheticEngine("m")):
        chunks = await chunks_of(one, GenerateRequest(ASK, json_answer=JsonAnswer(schema)))
        assert chunks[-1].finish_reason == "stop"
        jsonschema.validate(json.loads(text_of(chunks)), schema)


async def test_answer_whose_grammar_breaks_fails_alone(engine: LocalEngine) -> None:
    """llguidance gives up on a value of a million characters once the answer is in it, and then
    admits the end alone: what was said until there is no JSON."""
    endless = GenerateRequest(ASK, json_answer=JsonAnswer({"const": "y" * 1_000_000}))
    short = GenerateRequest(ASK, json_answer=JsonAnswer({"const": "y"}))

    async def failing() -> None:
        with pytest.raises(AnswerFailed, match="its grammar broke: lexer error"):
            await chunks_of(engine, endless)

    _, chunks = await asyncio.gather(failing(), chunks_of(engine, short))
    assert json.loads(text_of(chunks)) == "y"


def test_drawing_under_a_mask_is_exact_and_its_logprob_the_models_own() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, 3.0]])
    allowed = bytes([0b0110])
    counts = [0, 0, 0, 0]
    for place in range(1000):
        draw = Draw(Sampling(logprobs=True), (place + 0.5) / 1000, allowed)
        (sampled,) = sample(logits, [draw])
        counts[sampled.token] += 1
        assert sampled.scores is not None
        own = logits.log_softmax(-1)[0, sampled.token].item()
        assert sampled.scores.logprob == pytest.approx(own)
    assert counts == [0, 731, 269, 0]


@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=0), Sampling(top_k=1), Sampling(top_p=0.1)]
)
def test_greedy_and_filters_work_among_the_allowed(sampling: Sampling) -> None:
    (sampled,) = sample(torch.tensor([[2.0, 1.0, 0.0, 3.0]]), [Draw(sampling, 0.9, bytes([6]))])
    assert sampled.token == 1
