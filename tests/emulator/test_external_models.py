"""Endpoints with external models: checked, kept without their secrets, not served."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from servemu.clock import PausedClock
from servemu.settings import Settings
from servemu.testing import serve

Json = dict[str, Any]
Advance = Callable[[float], None]
Get = Callable[..., Json]
Create = Callable[..., Json]
Entity = Callable[..., Json]
Connect = Callable[..., httpx.Client]
AssertFails = Callable[[httpx.Response, int, str, str], None]

B = "/api/2.0/serving-endpoints"
INVALID = "INVALID_PARAMETER_VALUE"
SECRET = "sk-very-secret-9e107d9d"
REFERENCE = "{{{{secrets/serving-endpoint-secrets/{}-{}-{}}}}}"
OPENAI = {"openai_config": {"openai_api_key": "{{secrets/a/b}}"}}
UP = 1.0
"""Seconds of the workspace's clock: ten real ones, and some."""


def external(provider: str = "openai", **config: Json) -> Json:
    """A served entity with an external model."""
    model = {"provider": provider, "name": "gpt-4.1:mini", "task": "llm/v1/chat"}
    return {"external_model": model | (config or OPENAI)}


def create(client: httpx.Client, *entities: Json, **fields: object) -> httpx.Response:
    config = {"served_entities": list(entities), **fields}
    return client.post(B, json={"name": "ext", "config": config})


def test_external_model_comes_up_in_seconds(
    workspace: httpx.Client, advance: Advance, get: Get
) -> None:
    created = create(workspace, external()).json()
    assert created["state"]["config_update"] == "IN_PROGRESS"
    advance(UP)
    endpoint = get("ext")
    assert endpoint["state"]["ready"] == "READY"
    assert (endpoint["endpoint_type"], endpoint["task"]) == ("EXTERNAL_MODEL", "llm/v1/chat")
    [entity] = endpoint["config"].pop("served_entities")
    assert endpoint["config"] == {
        "traffic_config": {
            "routes": [
                {
                    "served_model_name": "gpt-4-1-mini",
                    "served_entity_name": "gpt-4-1-mini",
                    "traffic_percentage": 100,
                }
            ]
        },
        "config_version": 1,
    }
    assert entity == {
        "name": "gpt-4-1-mini",
        "type": "EXTERNAL_MODEL",
        **external(),
        "creator": "me@example.com",
        "creation_timestamp": entity["creation_timestamp"],
        "state": {"deployment": "DEPLOYMENT_READY", "deployment_state_message": ""},
    }


def test_list_item_shows_the_external_model(workspace: httpx.Client, advance: Advance) -> None:
    create(workspace, external())
    advance(UP)
    [item] = [e for e in workspace.get(B).json()["endpoints"] if e["name"] == "ext"]
    summary = {"name": "gpt-4-1-mini", "type": "EXTERNAL_MODEL", **external()}
    assert item["config"] == {"served_entities": [summary]}
    assert item["endpoint_type"] == "EXTERNAL_MODEL"


@pytest.mark.parametrize(
    "path", ["/serving-endpoints/ext/invocations", "/serving-endpoints/chat/completions"]
)
def test_query_gets_the_real_shape_of_an_upstream_failure(
    workspace: httpx.Client, advance: Advance, path: str
) -> None:
    create(workspace, external())
    advance(UP)
    answer = workspace.post(path, json={"model": "ext", "messages": [{"role": "user"}]})
    why = "servemu serves no external models: it has no way to their provider."
    inner = {
        "external_model_provider": "openai",
        "external_model_error": {"error": {"message": why, "type": "not_emulated"}},
    }
    assert answer.status_code == 400
    assert answer.json()["error_code"] == "BAD_REQUEST"
    assert json.loads(answer.json()["message"]) == inner
    assert answer.headers["x-emulator-why"] == why


PLAIN: dict[str, tuple[Json, list[str]]] = {
    "ai21labs": ({"ai21labs_config": {"ai21labs_api_key_plaintext": SECRET}}, ["ai21labs_api_key"]),
    "amazon-bedrock": (
        {
            "amazon_bedrock_config": {
                "aws_region": "eu-west-1",
                "bedrock_provider": "Anthropic",
                "aws_access_key_id_plaintext": SECRET,
                "aws_secret_access_key_plaintext": SECRET,
            }
        },
        ["aws_access_key_id", "aws_secret_access_key"],
    ),
    "anthropic": (
        {"anthropic_config": {"anthropic_api_key_plaintext": SECRET}},
        ["anthropic_api_key"],
    ),
    "cohere": ({"cohere_config": {"cohere_api_key_plaintext": SECRET}}, ["cohere_api_key"]),
    "databricks-model-serving": (
        {
            "databricks_model_serving_config": {
                "databricks_workspace_url": "https://example.com",
                "databricks_api_token_plaintext": SECRET,
            }
        },
        ["databricks_api_token"],
    ),
    "google-cloud-vertex-ai": (
        {
            "google_cloud_vertex_ai_config": {
                "project_id": "p",
                "region": "r",
                "private_key_plaintext": SECRET,
            }
        },
        ["private_key"],
    ),
    "openai": (
        {
            "openai_config": {
                "openai_api_type": "azuread",
                "microsoft_entra_tenant_id": "t",
                "microsoft_entra_client_id": "c",
                "microsoft_entra_client_secret_plaintext": SECRET,
                "openai_api_base": "https://example.com",
                "openai_api_version": "2024-02-01",
                "openai_deployment_name": "d",
            }
        },
        ["microsoft_entra_client_secret"],
    ),
    "palm": ({"palm_config": {"palm_api_key_plaintext": SECRET}}, ["palm_api_key"]),
}


@pytest.mark.parametrize("provider", PLAIN)
def test_secret_in_plain_text_is_shown_as_a_reference(
    workspace: httpx.Client, provider: str
) -> None:
    given, secrets = PLAIN[provider]
    answer = create(workspace, external(provider, **given) | {"name": "e"})
    assert answer.status_code == 200, answer.text
    assert SECRET not in answer.text and "_plaintext" not in answer.text
    [entity] = answer.json()["pending_config"]["served_entities"]
    [(key, config)] = given.items()
    shown = entity["external_model"][key]
    assert {name: shown[name] for name in secrets} == {
        name: REFERENCE.format("ext", "e", name) for name in secrets
    }
    open_fields = {name: value for name, value in config.items() if "_plaintext" not in name}
    open_fields |= {"bedrock_provider": "anthropic"} if "bedrock_provider" in config else {}
    assert {name: shown[name] for name in open_fields} == open_fields


def test_nested_secret_of_a_custom_provider_is_shown_as_a_reference(
    workspace: httpx.Client,
) -> None:
    auth = {"api_key_auth": {"key": "x-api-key", "value_plaintext": SECRET}}
    config = {"custom_provider_url": "https://example.com", **auth}
    answer = create(workspace, external("custom", custom_provider_config=config) | {"name": "e"})
    [entity] = answer.json()["pending_config"]["served_entities"]
    assert entity["external_model"]["custom_provider_config"]["api_key_auth"] == {
        "key": "x-api-key",
        "value": REFERENCE.format("ext", "e", "value"),
    }
    assert SECRET not in answer.text


def test_secret_is_in_no_answer_file_or_log(
    tmp_path: Path, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """Refused, stored, updated, failed and read again."""
    caplog.set_level(logging.DEBUG)
    plain = {"openai_api_key_plaintext": SECRET}
    bad = [
        external(openai_config=plain | {"openai_api_type": "azur"}),
        external(openai_config=plain | {"openai_api_key": "{{secrets/a/b}}"}),
        external(openai_config={"openai_api_key_plaintext": [SECRET]}),
        external(openai_config=[plain]),  # type: ignore[arg-type]
        external("anthropic", openai_config=plain),
        {"external_model": [external(openai_config=plain)]},
    ]
    answers = []
    settings = Settings(engine="synthetic", database=str(tmp_path / "state.db"))
    with serve(settings, PausedClock()) as own, connect(own.url) as client:
        answers += [create(client, entity) for entity in bad]
        assert {answer.status_code for answer in answers} == {400}
        good = {"served_entities": [external(openai_config=plain)]}
        answers.append(client.post(B, json={"name": "ext", "config": good}))
        client.post("/_emulator/clock/advance", json={"seconds": UP})
        answers.append(client.put(f"{B}/ext/config", json=good))
        answers += [client.get(f"{B}/ext"), client.get(B), client.get(f"{B}/ext/events")]
        assert {answer.status_code for answer in answers[len(bad) :]} == {200}
    files = [path.read_bytes() for path in tmp_path.iterdir()]
    assert any(b"ext" in content for content in files)
    assert not any(SECRET.encode() in content for content in files)
    assert not any(SECRET in answer.text for answer in answers)
    assert SECRET not in caplog.text


def field(name: str) -> str:
    return f"external_model.openai_config.{name}"


def without(key: str) -> Json:
    entity = external()
    del entity["external_model"][key]
    return entity


ENTITIES: dict[str, tuple[Json, str]] = {
    "no provider": (
        without("provider"),
        "Missing required field: config.served_entities[0].external_model.provider",
    ),
    "no name": (
        without("name"),
        "Missing required field: config.served_entities[0].external_model.name",
    ),
    "no task": (
        without("task"),
        "Missing required field: config.served_entities[0].external_model.task",
    ),
    "unknown provider": (
        external("acme"),
        "Invalid value for field 'config.served_entities[0].external_model.provider': Input should "
        "be 'ai21labs', 'amazon-bedrock', 'anthropic', 'cohere', 'custom', "
        "'databricks-model-serving', 'google-cloud-vertex-ai', 'openai' or 'palm' "
        '(given: "acme")',
    ),
    "no config": (without("openai_config"), "Missing required field: external_model.openai_config"),
    "config of another provider": (
        external("anthropic", openai_config={}),
        "openai_config cannot be specified for the external model provider 'anthropic'.",
    ),
    "no key": (
        external(openai_config={}),
        f"Missing required field: {field('openai_api_key')} or {field('openai_api_key_plaintext')}",
    ),
    "empty key": (
        external(openai_config={"openai_api_key_plaintext": ""}),
        f"Missing required field: {field('openai_api_key')} or {field('openai_api_key_plaintext')}",
    ),
    "key twice": (
        external(openai_config={"openai_api_key": "a", "openai_api_key_plaintext": "b"}),
        f"Only one of {field('openai_api_key')} and {field('openai_api_key_plaintext')} can be "
        "specified.",
    ),
    "azure without base": (
        external(openai_config={"openai_api_type": "azure", "openai_api_key": "a"}),
        f"Missing required field: {field('openai_api_base')}",
    ),
    "two ways to authenticate": (
        external(
            "custom",
            custom_provider_config={
                "custom_provider_url": "https://example.com",
                "api_key_auth": {"key": "a", "value": "b"},
                "bearer_token_auth": {"token": "c"},
            },
        ),
        "Only one authentication method can be specified in custom_provider_config, got "
        "['api_key_auth', 'bearer_token_auth'].",
    ),
    "throughput": (
        external() | {"min_provisioned_throughput": 0},
        "provisioned throughput is not supported for endpoints with external models",
    ),
    "entity name": (
        external() | {"entity_name": "a.b.c"},
        "entity_name cannot be specified together with external_model.",
    ),
    "workload": (
        external() | {"workload_type": "CPU"},
        "workload_type cannot be specified together with external_model.",
    ),
    "environment": (
        external() | {"environment_vars": {"A": "b"}},
        "environment_vars cannot be specified together with external_model.",
    ),
}


@pytest.mark.parametrize("case", ENTITIES)
def test_bad_external_model_is_refused(
    assert_fails: AssertFails, workspace: httpx.Client, case: str
) -> None:
    entity, message = ENTITIES[case]
    assert_fails(create(workspace, entity), 400, INVALID, message)


def split(*names: str) -> Json:
    shares = [100] + [0] * (len(names) - 1)
    return {
        "routes": [
            {"served_entity_name": name, "traffic_percentage": share}
            for name, share in zip(names, shares, strict=True)
        ]
    }


def test_external_models_stand_alone(
    assert_fails: AssertFails, workspace: httpx.Client, entity: Entity
) -> None:
    both = [external() | {"name": "a"}, entity(name="b")]
    message = "External models cannot be served together with other models on one endpoint."
    answer = create(workspace, *both, traffic_config=split("a", "b"))
    assert_fails(answer, 400, INVALID, message)


def test_external_models_share_one_task(assert_fails: AssertFails, workspace: httpx.Client) -> None:
    other = external() | {"name": "b"}
    other["external_model"] = other["external_model"] | {"task": "llm/v1/embeddings"}
    answer = create(workspace, external() | {"name": "a"}, other, traffic_config=split("a", "b"))
    message = "All served entities must have the same task, got llm/v1/chat, llm/v1/embeddings."
    assert_fails(answer, 400, INVALID, message)


def test_endpoint_does_not_change_between_external_and_not(
    assert_fails: AssertFails,
    workspace: httpx.Client,
    create: Create,
    advance: Advance,
    entity: Entity,
) -> None:
    create("own")
    create("ext", external())
    advance(60)
    assert_fails(
        workspace.put(f"{B}/own/config", json={"served_entities": [external()]}),
        400,
        INVALID,
        "An endpoint that was created without an external model cannot be updated to one with.",
    )
    assert_fails(
        workspace.put(f"{B}/ext/config", json={"served_entities": [entity()]}),
        400,
        INVALID,
        "An endpoint with an external model cannot be updated to one without.",
    )
