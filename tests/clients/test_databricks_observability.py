"""databricks-sdk, unmodified: metrics, OpenAPI, logs and build logs of an endpoint."""

import json
import re
from collections.abc import Callable

import httpx
import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import NotFound, ResourceDoesNotExist
from databricks.sdk.service.serving import (
    BuildLogsResponse,
    ChatMessage,
    ChatMessageRole,
    EndpointCoreConfigInput,
    ServedEntityInput,
    ServerLogsResponse,
)
from openapi_spec_validator import validate
from prometheus_client.parser import text_string_to_metric_families

from servemu.testing import Emulator

ENTITY = "foundation-model-3"
HI = [ChatMessage(role=ChatMessageRole.USER, content="Hi")]


@pytest.fixture
def client(emulator: Emulator, workspace: httpx.Client) -> WorkspaceClient:
    token = workspace.headers["Authorization"].removeprefix("Bearer ")
    return WorkspaceClient(host=emulator.url, token=token)


@pytest.fixture
def llama(client: WorkspaceClient, advance: Callable[[float], None]) -> str:
    """An endpoint that is up; its name."""
    served = ServedEntityInput(
        entity_name="ml.llm-catalog.foundation-model",
        entity_version="3",
        min_provisioned_throughput=1580,
        max_provisioned_throughput=1580,
    )
    config = EndpointCoreConfigInput(name="llama", served_entities=[served])
    client.serving_endpoints.create("llama", config=config)
    advance(60)
    return "llama"


def test_export_metrics_counts_the_queries(client: WorkspaceClient, llama: str) -> None:
    for _ in range(3):
        client.serving_endpoints.query(llama, messages=HI, max_tokens=2)
    contents = client.serving_endpoints.export_metrics(llama).contents
    assert contents is not None
    families = {
        family.name: family
        for family in text_string_to_metric_families(contents.read().decode("utf-8"))
    }
    counted = families["request_count_total"]
    assert (counted.type, [sample.value for sample in counted.samples]) == ("gauge", [3.0])
    assert counted.samples[0].labels == {
        "endpoint_name": llama,
        "served_entity_name": ENTITY,
    }
    latency = {
        s.name: s.value for s in families["request_latency_ms"].samples if "le" not in s.labels
    }
    assert latency["request_latency_ms_count"] == 3
    assert latency["request_latency_ms_sum"] > 0


def test_export_metrics_of_a_pay_per_token_endpoint_is_not_found(client: WorkspaceClient) -> None:
    with pytest.raises(NotFound, match="is pay-per-token"):
        client.serving_endpoints.export_metrics("databricks-gpt-oss-20b")


def test_get_open_api_is_a_valid_document(
    emulator: Emulator, client: WorkspaceClient, llama: str
) -> None:
    contents = client.serving_endpoints.get_open_api(llama).contents
    assert contents is not None
    document = json.loads(contents.read())
    validate(document)
    assert document["servers"] == [{"url": f"{emulator.url}/serving-endpoints/{llama}"}]
    assert list(document["paths"]) == ["/invocations", f"/served-models/{ENTITY}/invocations"]


def test_logs_show_the_load_and_the_queries(client: WorkspaceClient, llama: str) -> None:
    answer = client.serving_endpoints.query(llama, messages=HI, max_tokens=2)
    shown = client.serving_endpoints.logs(llama, ENTITY)
    replica = shown.logs[1:6]
    assert re.fullmatch("[a-z0-9]{5}", replica)
    early, late = (f"[{replica}] [2025-06-15 15:0{n}:40 +0000] [2] [INFO] " for n in (6, 7))
    assert answer.usage is not None
    assert shown == ServerLogsResponse(
        logs=(
            f"{early}Container started\n"
            f"{early}Model loaded in 0.000 s: smollm2-135m-instruct (synthetic, none on none, "
            "0 parameters, 0 bytes, context 131072 tokens)\n"
            f"{late}Requests answered so far: 1 (200: 1); "
            f"tokens in: {answer.usage.prompt_tokens}, tokens out: 2\n"
        )
    )


def test_build_logs_are_empty_where_no_image_was_built(client: WorkspaceClient, llama: str) -> None:
    assert client.serving_endpoints.build_logs(llama, ENTITY) == BuildLogsResponse(logs="")


def test_logs_of_an_unknown_served_entity_raise(client: WorkspaceClient, llama: str) -> None:
    with pytest.raises(ResourceDoesNotExist, match="Served entity 'other' of endpoint 'llama'"):
        client.serving_endpoints.logs(llama, "other")
    with pytest.raises(ResourceDoesNotExist, match="Served entity 'other' of endpoint 'llama'"):
        client.serving_endpoints.build_logs(llama, "other")
