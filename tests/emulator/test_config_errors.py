"""Served entities, traffic and configs that are refused, at create and at update."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

Json = dict[str, Any]
AssertFails = Callable[[httpx.Response, int, str, str], None]

B = "/api/2.0/serving-endpoints"
MODEL = "ml.llm-catalog.foundation-model"
LLAMA = {
    "entity_name": MODEL,
    "entity_version": "3",
    "min_provisioned_throughput": 1580,
    "max_provisioned_throughput": 1580,
}
GTE = {
    "entity_name": "system.ai.gte_large_en_v1_5",
    "entity_version": "1",
    "min_provisioned_throughput": 980,
    "max_provisioned_throughput": 980,
}
MAVERICK = {"entity_name": "system.ai.llama-4-maverick", "entity_version": "1"}

NO_MODEL = "Routine or Model 'a.b.c' does not exist."
NO_VERSION = f"Model Version (name='{MODEL}', version=9) does not exist."
NO_ENTITY = "At least one served entity must be specified."
INVALID = "INVALID_PARAMETER_VALUE"
MISSING = "RESOURCE_DOES_NOT_EXIST"


def entity_field(field: str, problem: str) -> str:
    return f"Invalid value for field 'config.served_entities[0].{field}': {problem}"


def size(problem: str) -> str:
    return problem.replace("…", f"for {MODEL}")


INT = "Input should be a valid integer"
ENTITIES: dict[str, tuple[Json, int, str, str]] = {
    "no name": (
        {"entity_name": None},
        400,
        INVALID,
        "Missing required field: served_entities.entity_name",
    ),
    "no version": (
        {"entity_version": None},
        400,
        INVALID,
        f"Missing required field: served_entities.entity_version of {MODEL}",
    ),
    "unknown model": ({"entity_name": "a.b.c"}, 404, MISSING, NO_MODEL),
    "unknown version": ({"entity_version": 9}, 404, MISSING, NO_VERSION),
    "version is a boolean": (
        {"entity_version": True},
        400,
        INVALID,
        entity_field("entity_version", "Input should be a valid string (given: true)"),
    ),
    "entity name with a slash": (
        {"name": "a/b"},
        400,
        INVALID,
        "Served entity name must be alphanumeric with hyphens and underscores allowed, got 'a/b'.",
    ),
    "negative": (
        {"min_provisioned_throughput": -1},
        400,
        INVALID,
        size("min_provisioned_throughput must not be negative …, got -1."),
    ),
    "zero": (
        {"min_provisioned_throughput": 0, "max_provisioned_throughput": 0},
        400,
        INVALID,
        size("max_provisioned_throughput must be greater than 0 …, got 0."),
    ),
    "minimum above maximum": (
        {"min_provisioned_throughput": 3160},
        400,
        INVALID,
        size(
            "min_provisioned_throughput (3160) must not be greater than "
            "max_provisioned_throughput (1580) …."
        ),
    ),
    "no maximum": (
        {"max_provisioned_throughput": None},
        400,
        INVALID,
        size("max_provisioned_throughput is required …."),
    ),
    "beyond int64": (
        {"max_provisioned_throughput": 2**63},
        400,
        INVALID,
        entity_field(
            "max_provisioned_throughput",
            f"Input should be less than or equal to {2**63 - 1} (given: {2**63})",
        ),
    ),
    "a fraction": (
        {"max_provisioned_throughput": 1.5},
        400,
        INVALID,
        entity_field(
            "max_provisioned_throughput", f"{INT}, got a number with a fractional part (given: 1.5)"
        ),
    ),
    "a word": (
        {"max_provisioned_throughput": "much"},
        400,
        INVALID,
        entity_field(
            "max_provisioned_throughput",
            f'{INT}, unable to parse string as an integer (given: "much")',
        ),
    ),
    "a boolean": (
        {"max_provisioned_throughput": True},
        400,
        INVALID,
        entity_field("max_provisioned_throughput", f"{INT} (given: true)"),
    ),
    "negative units": (
        {"provisioned_model_units": -50},
        400,
        INVALID,
        entity_field(
            "provisioned_model_units", "Input should be greater than or equal to 0 (given: -50)"
        ),
    ),
    "scale to zero is a word": (
        {"scale_to_zero_enabled": "yes"},
        400,
        INVALID,
        entity_field("scale_to_zero_enabled", 'Input should be a valid boolean (given: "yes")'),
    ),
    "not eligible": (
        {"entity_name": "system.ai.gpt-oss-120b", "entity_version": "1"},
        400,
        INVALID,
        "Served entity system.ai.gpt-oss-120b is not eligible for Provisioned Throughput.",
    ),
    "base Llama": (
        {"entity_name": "system.ai.meta_llama_3_8b", "entity_version": "1"},
        400,
        INVALID,
        "Base versions of Meta Llama models are not supported for deployment from system.ai.",
    ),
    "base Llama without throughput": (
        {
            "entity_name": "system.ai.meta_llama_3_8b",
            "entity_version": "1",
            "min_provisioned_throughput": None,
            "max_provisioned_throughput": None,
        },
        400,
        INVALID,
        "Base versions of Meta Llama models are not supported for deployment from system.ai.",
    ),
}


@pytest.mark.parametrize("case", ENTITIES)
def test_bad_served_entity_is_refused(
    assert_fails: AssertFails, workspace: httpx.Client, case: str
) -> None:
    fields, status, error_code, message = ENTITIES[case]
    given = {key: value for key, value in (LLAMA | fields).items() if value is not None}
    answer = workspace.post(B, json={"name": "a", "config": {"served_entities": [given]}})
    assert_fails(answer, status, error_code, message)
    assert workspace.get(f"{B}/a").status_code == 404


def split(*shares: tuple[str | None, int]) -> Json:
    routes = [{"served_entity_name": name, "traffic_percentage": share} for name, share in shares]
    return {"routes": routes}


A, C = LLAMA | {"name": "a"}, LLAMA | {"name": "c"}
CONFIGS: dict[str, tuple[Json, str]] = {
    "nothing": ({}, NO_ENTITY),
    "no entities": ({"served_entities": []}, NO_ENTITY),
    "16 entities": (
        {"served_entities": [LLAMA | {"name": f"e{n}"} for n in range(16)]},
        "At most 15 served entities are allowed, got 16.",
    ),
    "two alike": (
        {"served_entities": [LLAMA, LLAMA], "traffic_config": split(("a", 100))},
        "Served entity names must be unique, 'foundation-model-3' is given twice.",
    ),
    "two tasks": (
        {
            "served_entities": [A, GTE | {"name": "c"}],
            "traffic_config": split(("a", 50), ("c", 50)),
        },
        "All served entities must have the same task, got llm/v1/chat, llm/v1/embeddings.",
    ),
    "Maverick is alone": (
        {"served_entities": [A, MAVERICK], "traffic_config": split(("a", 100))},
        "Served entity system.ai.llama-4-maverick must be the only served entity of its "
        "endpoint, got 2.",
    ),
    "two without traffic": (
        {"served_entities": [A, C]},
        "traffic_config must be specified for more than one served entity.",
    ),
    "99 percent": (
        {"served_entities": [A, C], "traffic_config": split(("a", 50), ("c", 49))},
        "The traffic percentages must sum to 100, got 99.",
    ),
    "101 percent": (
        {"served_entities": [A], "traffic_config": split(("a", 101))},
        "Invalid value for field 'config.traffic_config.routes[0].traffic_percentage': Input "
        "should be less than or equal to 100 (given: 101)",
    ),
    "traffic to nobody": (
        {"served_entities": [A, C], "traffic_config": split(("a", 50), ("b", 50))},
        "Traffic route names unknown served entity 'b'. Served entities: a, c.",
    ),
    "route without a name": (
        {"served_entities": [A], "traffic_config": split((None, 100))},
        "Missing required field: traffic_config.routes.served_entity_name",
    ),
    "route without a share": (
        {"served_entities": [A], "traffic_config": {"routes": [{"served_entity_name": "a"}]}},
        "Missing required field: config.traffic_config.routes[0].traffic_percentage",
    ),
}


@pytest.fixture
def up(workspace: httpx.Client) -> httpx.Client:
    """The workspace with an endpoint `up` that serves."""
    workspace.post(B, json={"name": "up", "config": {"served_entities": [LLAMA]}})
    workspace.post("/_emulator/clock/advance", json={"seconds": 60})
    return workspace


@pytest.mark.parametrize("case", CONFIGS)
def test_bad_config_is_refused_at_create(
    assert_fails: AssertFails, workspace: httpx.Client, case: str
) -> None:
    config, message = CONFIGS[case]
    answer = workspace.post(B, json={"name": "a", "config": config})
    assert_fails(answer, 400, INVALID, message)


@pytest.mark.parametrize("case", CONFIGS)
def test_bad_config_is_refused_at_update(
    assert_fails: AssertFails, up: httpx.Client, case: str
) -> None:
    config, message = CONFIGS[case]
    answer = up.put(f"{B}/up/config", json=config)
    assert_fails(answer, 400, INVALID, message.replace("'config.", "'").replace(" config.", " "))
