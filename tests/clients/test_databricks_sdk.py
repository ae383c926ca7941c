"""databricks-sdk, unmodified: deploy, wait, query, and meet the failures of a real deployment."""

import re

import pytest
import requests
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import (
    BadRequest,
    InvalidParameterValue,
    OperationFailed,
    ResourceAlreadyExists,
    ResourceConflict,
    ResourceDoesNotExist,
)
from databricks.sdk.service.serving import (
    ChatMessage,
    ChatMessageRole,
    EndpointCoreConfigInput,
    EndpointStateConfigUpdate,
    EndpointStateReady,
    EndpointTag,
    ServedEntityInput,
    ServedModelStateDeployment,
    ServingEndpointDetailed,
)

from servemu.testing import Emulator

MODEL = "system.ai.meta_llama_v3_1_8b_instruct"
QUESTION = [ChatMessage(role=ChatMessageRole.USER, content="What is the capital of France?")]
NO_CAPACITY = (
    "Served entity creation aborted because the resource did not become available in time."
)


def entity(version: str = "3", model: str = MODEL) -> ServedEntityInput:
    return ServedEntityInput(
        entity_name=model,
        entity_version=version,
        min_provisioned_throughput=19000,
        max_provisioned_throughput=19000,
    )


@pytest.fixture
def deployed(databricks: WorkspaceClient) -> ServingEndpointDetailed:
    config = EndpointCoreConfigInput(name="llama", served_entities=[entity()])
    return databricks.serving_endpoints.create_and_wait("llama", config=config)


def fail_for_capacity(real: Emulator, token: str, preset: str) -> None:
    """The fault, and a wait short enough for the SDK's own time-out."""
    rule = {"preset": preset, "match": {"endpoint": "llama*"}, "effect": {"after": "PT10M"}}
    headers = {"Authorization": f"Bearer {token}"}
    requests.post(f"{real.url}/_emulator/faults", json=rule, headers=headers).raise_for_status()


def answer(databricks: WorkspaceClient, name: str) -> str:
    response = databricks.serving_endpoints.query(
        name, messages=QUESTION, temperature=0, max_tokens=32
    )
    assert response.choices is not None and response.choices[0].message is not None
    return response.choices[0].message.content or ""


def test_create_and_wait_then_query_names_paris(
    databricks: WorkspaceClient, deployed: ServingEndpointDetailed
) -> None:
    assert deployed.state is not None and deployed.state.ready is EndpointStateReady.READY
    assert deployed.config is not None and deployed.config.config_version == 1
    assert deployed.pending_config is None
    assert "Paris" in answer(databricks, "llama")


def test_query_reads_the_served_model_name_from_the_header(
    databricks: WorkspaceClient, deployed: ServingEndpointDetailed
) -> None:
    response = databricks.serving_endpoints.query("llama", messages=QUESTION, max_tokens=1)
    assert response.served_model_name == "meta_llama_v3_1_8b_instruct-3"
    assert response.object is not None and response.object.value == "chat.completion"
    assert response.usage is not None
    assert response.usage.completion_tokens == 1
    assert response.usage.total_tokens == (response.usage.prompt_tokens or 0) + 1


def test_failed_create_raises_operation_failed_and_shows_why(
    real: Emulator, token: str, databricks: WorkspaceClient
) -> None:
    fail_for_capacity(real, token, "no-gpu-capacity")
    config = EndpointCoreConfigInput(name="llama", served_entities=[entity()])
    with pytest.raises(OperationFailed, match="failed to reach NOT_UPDATING, got .*UPDATE_FAILED"):
        databricks.serving_endpoints.create_and_wait("llama", config=config)
    endpoint = databricks.serving_endpoints.get("llama")
    assert endpoint.state is not None and endpoint.pending_config is not None
    assert endpoint.state.ready is EndpointStateReady.NOT_READY
    assert endpoint.state.config_update is EndpointStateConfigUpdate.UPDATE_FAILED
    assert endpoint.config is None
    (failed,) = endpoint.pending_config.served_entities or []
    assert failed.state is not None
    assert failed.state.deployment is ServedModelStateDeployment.DEPLOYMENT_ABORTED
    assert failed.state.deployment_state_message == NO_CAPACITY
    with pytest.raises(ResourceDoesNotExist, match="not ready"):
        answer(databricks, "llama")


def test_failed_update_leaves_the_old_version_answering(
    real: Emulator, token: str, databricks: WorkspaceClient, deployed: ServingEndpointDetailed
) -> None:
    fail_for_capacity(real, token, "no-gpu-capacity-on-update")
    with pytest.raises(OperationFailed, match="UPDATE_FAILED"):
        databricks.serving_endpoints.update_config_and_wait("llama", served_entities=[entity("4")])
    endpoint = databricks.serving_endpoints.get("llama")
    assert endpoint.state is not None and endpoint.config is not None
    assert endpoint.state.ready is EndpointStateReady.READY
    assert endpoint.state.config_update is EndpointStateConfigUpdate.UPDATE_FAILED
    assert endpoint.config.config_version == 1
    assert [e.entity_version for e in endpoint.config.served_entities or []] == ["3"]
    assert endpoint.pending_config is not None
    assert [e.entity_version for e in endpoint.pending_config.served_entities or []] == ["4"]
    assert "Paris" in answer(databricks, "llama")


def test_update_after_a_failed_one_serves_the_new_version(
    real: Emulator, token: str, databricks: WorkspaceClient, deployed: ServingEndpointDetailed
) -> None:
    fail_for_capacity(real, token, "no-gpu-capacity-on-update")
    with pytest.raises(OperationFailed):
        databricks.serving_endpoints.update_config_and_wait("llama", served_entities=[entity("4")])
    headers = {"Authorization": f"Bearer {token}"}
    requests.delete(f"{real.url}/_emulator/faults", headers=headers).raise_for_status()
    done = databricks.serving_endpoints.update_config_and_wait(
        "llama", served_entities=[entity("4")]
    )
    assert done.config is not None and done.config.config_version == 3
    response = databricks.serving_endpoints.query("llama", messages=QUESTION, max_tokens=1)
    assert response.served_model_name == "meta_llama_v3_1_8b_instruct-4"


def test_list_get_tags_and_delete(
    databricks: WorkspaceClient, deployed: ServingEndpointDetailed
) -> None:
    tags = databricks.serving_endpoints.patch("llama", add_tags=[EndpointTag("team", "search")])
    assert tags.tags == [EndpointTag("team", "search")]
    names = {endpoint.name for endpoint in databricks.serving_endpoints.list()}
    assert {"llama", "databricks-gte-large-en"} <= names
    databricks.serving_endpoints.delete("llama")
    with pytest.raises(
        ResourceDoesNotExist, match=re.escape("Endpoint with name 'llama' does not exist.")
    ):
        databricks.serving_endpoints.get("llama")


def test_bad_calls_raise_the_exceptions_of_the_real_service(
    databricks: WorkspaceClient, deployed: ServingEndpointDetailed
) -> None:
    api = databricks.serving_endpoints
    config = EndpointCoreConfigInput(name="llama", served_entities=[entity()])
    with pytest.raises(ResourceAlreadyExists):
        api.create("llama", config=config)
    with pytest.raises(InvalidParameterValue, match="Endpoint name must be maximum 63 characters"):
        api.create("no.dots", config=config)
    with pytest.raises(ResourceDoesNotExist, match=re.escape("'a.b.c' does not exist")):
        api.update_config("llama", served_entities=[entity(model="a.b.c")])
    with pytest.raises(InvalidParameterValue, match="not eligible for Provisioned Throughput"):
        api.update_config("llama", served_entities=[entity("1", "system.ai.gpt-oss-120b")])
    with pytest.raises(BadRequest, match="temperature"):
        api.query("llama", messages=QUESTION, temperature=3)
    api.update_config("llama", served_entities=[entity("4")])
    with pytest.raises(ResourceConflict, match="currently being updated"):
        api.update_config("llama", served_entities=[entity("4")])


def test_current_user_and_workspace_id(databricks: WorkspaceClient) -> None:
    assert databricks.current_user.me().user_name == "me@example.com"
    assert databricks.get_workspace_id() > 0
