"""Presets that fail deployments, met by databricks-sdk's waiters (facts: rows C, D)."""

from collections.abc import Callable
from datetime import timedelta

import httpx
import openai
import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import OperationFailed
from tests.preset_clients import AT_ONCE, UP, Json, ask, config

NO_CAPACITY = (
    "Served entity creation aborted because the resource did not become available in time."
)
TIMED_OUT = (
    "Served model creation aborted because the endpoint update timed out. "
    "Please see service logs for more information."
)
NOT_LOADED = "Model server failed to load the model."
LIFECYCLE = {
    "no-gpu-capacity": (29.0, "ABORTED", NO_CAPACITY),
    "create-timed-out": (122.0, "ABORTED", TIMED_OUT),
    "partial-failure": (UP, "FAILED", NOT_LOADED),
    "image-build-failed": (22.0, "FAILED", "Container creation failed."),
    "model-load-failed": (UP, "FAILED", NOT_LOADED),
    "out-of-memory": (UP, "FAILED", NOT_LOADED),
    "artifact-missing": (UP, "FAILED", NOT_LOADED),
    "disk-full": (UP, "FAILED", NOT_LOADED),
    "model-code-error": (
        UP,
        "FAILED",
        "An error occurred while loading the model. No module named sentencepiece.",
    ),
    "region-out-of-gpus": (29.0, "ABORTED", NO_CAPACITY),
}
"""Of a create: seconds of the workspace's clock until it fails, and how its entity ends."""


@pytest.mark.parametrize("preset", LIFECYCLE)
def test_create_fails_as_recorded_and_the_waiter_raises(
    sdk: WorkspaceClient,
    arm: Callable[..., str],
    fired: Callable[[str], int],
    advance: Callable[[float], None],
    preset: str,
) -> None:
    seconds, state, message = LIFECYCLE[preset]
    rule = arm(preset)
    sdk.serving_endpoints.create("llama", config=config())
    advance(0.75)
    polled = sdk.serving_endpoints.get("llama").as_dict()["state"]
    assert polled == {"ready": "NOT_READY", "config_update": "IN_PROGRESS"}
    advance(seconds)
    with pytest.raises(OperationFailed, match="failed to reach NOT_UPDATING, got .*UPDATE_FAILED"):
        sdk.serving_endpoints.wait_get_serving_endpoint_not_updating("llama", AT_ONCE)
    shown = sdk.serving_endpoints.get("llama").as_dict()
    assert shown["state"] == {"ready": "NOT_READY", "config_update": "UPDATE_FAILED"}
    assert "config" not in shown
    [entity] = shown["pending_config"]["served_entities"]
    deployment = {"deployment": f"DEPLOYMENT_{state}", "deployment_state_message": message}
    assert entity["state"] == deployment
    assert fired(rule) == 1


UPDATES = {
    "no-gpu-capacity-on-update": (29.0, "ABORTED", NO_CAPACITY),
    "update-timed-out": (122.0, "ABORTED", TIMED_OUT),
}


@pytest.mark.parametrize("preset", UPDATES)
def test_failed_update_raises_while_the_old_config_answers(
    sdk: WorkspaceClient,
    chat: openai.OpenAI,
    llama: str,
    arm: Callable[..., str],
    advance: Callable[[float], None],
    preset: str,
) -> None:
    seconds, state, message = UPDATES[preset]
    arm(preset)
    entities = config("b").served_entities
    sdk.serving_endpoints.update_config(llama, served_entities=entities)
    advance(seconds)
    with pytest.raises(OperationFailed, match="UPDATE_FAILED"):
        sdk.serving_endpoints.wait_get_serving_endpoint_not_updating(llama, AT_ONCE)
    shown = sdk.serving_endpoints.get(llama).as_dict()
    assert shown["state"] == {"ready": "READY", "config_update": "UPDATE_FAILED"}
    [entity] = shown["pending_config"]["served_entities"]
    deployment = {"deployment": f"DEPLOYMENT_{state}", "deployment_state_message": message}
    assert entity["state"] == deployment
    assert ask(chat).choices[0].message.content


def test_slow_deployment_outlasts_the_waiter_and_then_serves(
    sdk: WorkspaceClient, arm: Callable[..., str], advance: Callable[[float], None]
) -> None:
    arm("slow-deployment")
    sdk.serving_endpoints.create("llama", config=config())
    advance(49.5)
    with pytest.raises(TimeoutError, match="timed out after 0:00:00.0"):
        sdk.serving_endpoints.wait_get_serving_endpoint_not_updating(
            "llama", timeout=timedelta(milliseconds=1)
        )
    advance(3)
    ready = sdk.serving_endpoints.wait_get_serving_endpoint_not_updating("llama", AT_ONCE).as_dict()
    assert ready["state"] == {"ready": "READY", "config_update": "NOT_UPDATING"}


def test_partial_failure_fails_one_entity_and_aborts_the_other(
    workspace: httpx.Client,
    arm: Callable[..., str],
    advance: Callable[[float], None],
    get: Callable[..., Json],
    entity: Callable[..., Json],
) -> None:
    arm("partial-failure")
    routes = [{"served_entity_name": "stable", "traffic_percentage": 100}]
    body = {
        "served_entities": [entity(name="stable"), entity(name="canary")],
        "traffic_config": {"routes": routes},
    }
    workspace.post("/api/2.0/serving-endpoints", json={"name": "llama", "config": body})
    advance(UP)
    states = [e["state"]["deployment"] for e in get()["pending_config"]["served_entities"]]
    assert states == ["DEPLOYMENT_ABORTED", "DEPLOYMENT_FAILED"]


@pytest.mark.parametrize(
    ("preset", "said"),
    [
        ("model-load-failed", "builtins.AttributeError"),
        ("out-of-memory", "was sent code 139!"),
        ("artifact-missing", "FileNotFoundError: [Errno 2]"),
        ("disk-full", "OSError: [Errno 28] No space left on device"),
        ("model-code-error", "ModuleNotFoundError: No module named 'sentencepiece'"),
    ],
)
def test_service_log_of_a_failed_load_says_why(
    workspace: httpx.Client,
    create: Callable[..., Json],
    arm: Callable[..., str],
    advance: Callable[[float], None],
    preset: str,
    said: str,
) -> None:
    arm(preset)
    name = create()["pending_config"]["served_entities"][0]["name"]
    advance(UP)
    path = f"/api/2.0/serving-endpoints/llama/served-models/{name}/logs?config_version=1"
    assert said in workspace.get(path).json()["logs"]


def test_failed_image_build_is_in_events_and_build_log(
    workspace: httpx.Client,
    create: Callable[..., Json],
    get: Callable[..., Json],
    arm: Callable[..., str],
    advance: Callable[[float], None],
) -> None:
    arm("image-build-failed")
    name = create()["pending_config"]["served_entities"][0]["name"]
    [waiting] = get()["pending_config"]["served_entities"]
    assert waiting["state"]["deployment_state_message"] == "Container creation pending."
    advance(22)
    base = "/api/2.0/serving-endpoints/llama"
    log = workspace.get(f"{base}/served-models/{name}/build-logs?config_version=1").json()["logs"]
    assert log.count("Build could not start due to an internal error") == 3
    told = [event["message"] for event in workspace.get(f"{base}/events").json()["events"]]
    failed = f"Served entity {name}: Container image creation failed: internal error"
    assert told.count(failed) == 3


def test_lost_replica_recovers_by_itself(
    sdk: WorkspaceClient, llama: str, arm: Callable[..., str], advance: Callable[[float], None]
) -> None:
    arm("replica-lost")
    lost = sdk.serving_endpoints.get(llama).as_dict()
    assert lost["state"] == {"ready": "NOT_READY", "config_update": "NOT_UPDATING"}
    [entity] = lost["config"]["served_entities"]
    assert entity["state"]["deployment"] == "DEPLOYMENT_RECOVERING"
    advance(5)
    back = sdk.serving_endpoints.get(llama).as_dict()
    assert back["state"]["ready"] == "READY"
    assert back["config"]["served_entities"][0]["state"]["deployment"] == "DEPLOYMENT_READY"


def test_failed_maintenance_leaves_the_old_config_serving(
    sdk: WorkspaceClient,
    chat: openai.OpenAI,
    llama: str,
    arm: Callable[..., str],
    advance: Callable[[float], None],
) -> None:
    arm("maintenance-failed")
    assert sdk.serving_endpoints.get(llama).as_dict()["state"]["config_update"] == "IN_PROGRESS"
    advance(UP)
    after = sdk.serving_endpoints.get(llama).as_dict()
    assert after["state"] == {"ready": "READY", "config_update": "UPDATE_FAILED"}
    assert (after["config"]["config_version"], after["pending_config"]["config_version"]) == (1, 2)
    assert ask(chat).choices[0].message.content
