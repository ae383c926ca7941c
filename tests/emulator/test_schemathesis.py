"""schemathesis over the emulator's own OpenAPI: no 500, and every answer matches its schema."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from servemu.app import ROUTES
from servemu.testing import Emulator

Json = dict[str, Any]
Advance = Callable[[float], None]
Create = Callable[..., Json]

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
OPERATIONS = sorted(
    f"{method} {route.path.replace(':path}', '}')}"
    for route in ROUTES
    for method in (route.methods or set()) - {"HEAD"}
)
BASE = {"entity_name": "system.ai.mistral_7b_v0_1", "entity_version": "2"}
"""Serves completions."""
EXAMPLES = 4
"""Of what has a body; of what has none there is less to try."""
MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]


@pytest.fixture(scope="module")
def schema(emulator: Emulator) -> BaseSchema:
    document = httpx.get(f"{emulator.url}/_emulator/openapi.json", trust_env=False).json()
    return schemathesis.openapi.from_dict(document)


@pytest.fixture
def known(create: Create, advance: Advance) -> Json:
    """A workspace with an endpoint that is up; the path parameters that find it."""
    endpoint = create("llama")
    create("base", {**BASE, "scale_to_zero_enabled": False})
    advance(60)
    return {"name": "llama", "entity": "foundation-model-3", "id": endpoint["id"]}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("label", OPERATIONS)
def test_answers_to_anything_match_their_schema(
    schema: BaseSchema,
    emulator: Emulator,
    workspace: httpx.Client,
    known: Json,
    label: str,
    mode: GenerationMode,
) -> None:
    method, _, path = label.partition(" ")
    operation = schema[path][method]
    headers = {"Authorization": workspace.headers["Authorization"]}
    named = {one: known[one] for one in known if f"{{{one}}}" in path} or None

    @given(case=operation.as_strategy(mode, path_parameters=named))
    @settings(
        max_examples=EXAMPLES if operation.body else EXAMPLES // 2,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def asked(case: Case[Any]) -> None:
        response = case.call(base_url=emulator.url, headers=headers, timeout=20)
        case.validate_response(response, checks=CHECKS)

    asked()


HI = [{"role": "user", "content": "Hi"}]
ENTITY = {
    "entity_name": "system.ai.gte_large_en_v1_5",
    "entity_version": "1",
    "scale_to_zero_enabled": False,
}

GOOD: list[tuple[str, Json]] = [
    ("POST /api/2.0/serving-endpoints", {"name": "bare", "tags": [{"key": "a"}]}),
    ("PUT /api/2.0/serving-endpoints/{name}/config", {"served_entities": [ENTITY]}),
    ("POST /_emulator/faults", {"preset": "no-gpu-capacity"}),
    ("POST /serving-endpoints/chat/completions", {"model": "llama", "messages": HI}),
    ("POST /serving-endpoints/{name}/invocations", {"messages": HI, "n": 2}),
    ("POST /serving-endpoints/{name}/invocations", {"messages": HI, "stream": True}),
    (
        "POST /serving-endpoints/{name}/served-models/{entity}/invocations",
        {"messages": HI, "logprobs": True, "top_logprobs": 1, "max_tokens": 2},
    ),
    ("POST /serving-endpoints/completions", {"model": "base", "prompt": "Hi"}),
    ("POST /serving-endpoints/embeddings", {"model": "databricks-gte-large-en", "input": "Hi"}),
    ("POST /serving-endpoints/responses", {"model": "databricks-gpt-5", "input": "Hi"}),
    (
        "POST /serving-endpoints/anthropic/v1/messages",
        {"model": "databricks-claude-haiku-4-5", "messages": HI, "max_tokens": 5},
    ),
]


@pytest.mark.parametrize(("label", "body"), GOOD)
def test_good_request_is_answered_as_its_schema_says(
    schema: BaseSchema, workspace: httpx.Client, known: Json, label: str, body: Json
) -> None:
    method, _, path = label.partition(" ")
    named = {one: known[one] for one in known if f"{{{one}}}" in path}
    response = workspace.request(method, path.format(**named), json=body)
    assert response.status_code == 200, response.text
    schema[path][method].validate_response(response)
