"""Embeddings over HTTP."""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from servemu.serving import Task
from servemu.throughput.budget import TokenBudget
from servemu_engine.synthetic import SyntheticEngine

if TYPE_CHECKING:
    from openai import OpenAI
    from tests.emulator.data_plane.conftest import JumpingClock, Plane

TASK: Task = "llm/v1/embeddings"


def test_answer(plane: Plane, http: httpx.Client, synthetic: SyntheticEngine) -> None:
    plane.add("e", TASK, synthetic)
    response = http.post("/e/invocations", json={"input": ["a", "b"], "usage_context": {}})
    answer = response.json()
    first, second = (item["embedding"] for item in answer["data"])
    assert response.headers["served-model-name"] == "e-1"
    assert len(first) == len(second) == 8 and first != second
    assert answer == {
        "object": "list",
        "model": "e-model",
        "data": [
            {"index": 0, "object": "embedding", "embedding": first},
            {"index": 1, "object": "embedding", "embedding": second},
        ],
        "usage": {"prompt_tokens": 6, "total_tokens": 6},
    }


def test_base64_is_little_endian_float32(
    plane: Plane, http: httpx.Client, synthetic: SyntheticEngine
) -> None:
    plane.add("e", TASK, synthetic)
    floats, encoded = (
        http.post("/e/invocations", json={"input": "a", "encoding_format": form}).json()["data"][0]
        for form in ("float", "base64")
    )
    values = struct.unpack("<8f", base64.b64decode(encoded["embedding"]))
    assert values == pytest.approx(floats["embedding"])


def test_openai_client_reads_the_vectors(
    plane: Plane, sdk: OpenAI, http: httpx.Client, synthetic: SyntheticEngine
) -> None:
    plane.add("e", TASK, synthetic)
    read = sdk.embeddings.create(model="e", input="a").data[0].embedding
    sent = http.post("/e/invocations", json={"input": "a"}).json()["data"][0]["embedding"]
    assert read == pytest.approx(sent)


def test_instruction_stands_before_each_text(
    plane: Plane, http: httpx.Client, synthetic: SyntheticEngine
) -> None:
    plane.add("e", TASK, synthetic)
    by_instruction, by_hand = (
        http.post("/e/invocations", json=body).json()["data"][0]["embedding"]
        for body in ({"input": "a", "instruction": "Find:"}, {"input": "Find: a"})
    )
    assert by_instruction == by_hand


def test_fewer_dimensions_can_be_asked_for(
    plane: Plane, http: httpx.Client, synthetic: SyntheticEngine
) -> None:
    plane.add("e", TASK, synthetic)
    answer = http.post("/e/invocations", json={"input": "a", "dimensions": 4}).json()
    assert len(answer["data"][0]["embedding"]) == 4


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"input": ["a"] * 151}, "input must be a string or a list of 1 to 150 strings"),
        ({"input": []}, "input must be a string or a list of 1 to 150 strings"),
        (
            {"input": "a", "instruction": "x" * 10_001},
            "instruction must have at most 10000 characters",
        ),
        ({"input": "a", "dimensions": 9}, "dimensions must be at most 8 for this model"),
        ({"messages": []}, 'json: unknown field "messages"'),
    ],
)
def test_refusals(
    plane: Plane,
    http: httpx.Client,
    synthetic: SyntheticEngine,
    body: dict[str, Any],
    message: str,
) -> None:
    plane.add("e", TASK, synthetic)
    response = http.post("/e/invocations", json=body)
    assert response.status_code == 400
    assert response.json() == {"error_code": "BAD_REQUEST", "message": f"Bad request: {message}\n"}


def test_tokens_are_paid(
    plane: Plane, http: httpx.Client, jumping_clock: JumpingClock, synthetic: SyntheticEngine
) -> None:
    budget = TokenBudget(10.0, jumping_clock)
    plane.add_limited("e", TASK, synthetic, budget)
    http.post("/e/invocations", json={"input": ["a", "b"]}).raise_for_status()
    assert budget.paid == 6
    assert jumping_clock.monotonic() == pytest.approx(0.6 - 0.05)


def test_closed_embedder_is_a_503(
    plane: Plane, http: httpx.Client, synthetic: SyntheticEngine
) -> None:
    plane.add("e", TASK, synthetic)
    synthetic.close()
    response = http.post("/e/invocations", json={"input": "a"})
    assert response.status_code == 503
    assert response.json() == {
        "error_code": "TEMPORARILY_UNAVAILABLE",
        "message": "The model server of served entity 'e-1' stopped.",
    }
