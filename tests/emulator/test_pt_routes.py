"""The `/pt` routes: endpoints sized in model units, and what stands before `{name}`."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from servemu.lifecycle.budgets import provisioned_tokens_per_second
from servemu.testing import Emulator

Json = dict[str, Any]
Advance = Callable[[float], None]
Get = Callable[..., Json]
AssertFails = Callable[[httpx.Response, int, str, str], None]

B = "/api/2.0/serving-endpoints"
UNITS = "system.ai.gpt-oss-120b"
TOKENS = "ml.llm-catalog.foundation-model"
INVALID = "INVALID_PARAMETER_VALUE"
UP = 3600.0


def pt(**fields: object) -> Json:
    """A `PtServedModel`; a field that is None is left out."""
    given = {"entity_name": UNITS, "entity_version": "1", "provisioned_model_units": 50, **fields}
    return {key: value for key, value in given.items() if value is not None}


def create(client: httpx.Client, *entities: Json, **fields: object) -> httpx.Response:
    config = {"served_entities": list(entities) or [pt()]}
    return client.post(f"{B}/pt", json={"name": "units", "config": config, **fields})


def resize(client: httpx.Client, *entities: Json) -> httpx.Response:
    body = {"config": {"served_entities": list(entities)}}
    return client.put(f"{B}/pt/units/config", json=body)


def test_pt_endpoint_comes_up_with_its_units_and_without_the_write_only_burst(
    workspace: httpx.Client, advance: Advance, get: Get
) -> None:
    created = create(workspace, pt(burst_scaling_enabled=True, name="mine"))
    assert created.status_code == 200
    advance(UP)
    endpoint = get("units")
    assert endpoint["state"] == {
        "ready": "READY",
        "config_update": "NOT_UPDATING",
        "suspend": "NOT_SUSPENDED",
    }
    [entity] = endpoint["config"]["served_entities"]
    assert entity == {
        "name": "mine",
        "entity_name": UNITS,
        "entity_version": "1",
        "provisioned_model_units": 50,
        "creator": "me@example.com",
        "creation_timestamp": entity["creation_timestamp"],
        "state": {"deployment": "DEPLOYMENT_READY", "deployment_state_message": ""},
    }


def test_pt_create_takes_all_its_fields(workspace: httpx.Client) -> None:
    gateway = {"usage_tracking_config": {"enabled": True}}
    created = create(
        workspace,
        ai_gateway=gateway,
        budget_policy_id="p",
        email_notifications={"on_update_failure": ["a@example.com"]},
        tags=[{"key": "team", "value": "a"}],
    ).json()
    assert created["ai_gateway"] == gateway
    assert created["effective_budget_policy_id"] == "p"
    assert created["tags"] == [{"key": "team", "value": "a"}]
    assert "email_notifications" not in created


def test_newest_version_is_taken_when_none_is_given(workspace: httpx.Client) -> None:
    [entity] = create(workspace, pt(entity_version=None)).json()["pending_config"][
        "served_entities"
    ]
    assert (entity["entity_version"], entity["name"]) == ("1", "gpt-oss-120b-1")


def test_resize_takes_effect_at_once(workspace: httpx.Client, advance: Advance, get: Get) -> None:
    create(workspace)
    advance(UP)
    resized = resize(workspace, pt(provisioned_model_units=150)).json()
    assert resized == get("units")
    assert resized["state"]["config_update"] == "NOT_UPDATING"
    assert "pending_config" not in resized
    assert resized["config"]["config_version"] == 2
    [entity] = resized["config"]["served_entities"]
    assert entity["provisioned_model_units"] == 150


def test_other_model_comes_up_first(workspace: httpx.Client, advance: Advance, get: Get) -> None:
    create(workspace)
    advance(UP)
    other = pt(entity_name="system.ai.gpt-oss-20b")
    assert resize(workspace, other).json()["state"]["config_update"] == "IN_PROGRESS"
    advance(UP)
    assert get("units")["config"]["served_entities"][0]["entity_name"] == other["entity_name"]


def test_resize_that_draws_a_fault_fails_as_any_update(
    workspace: httpx.Client, advance: Advance, get: Get
) -> None:
    create(workspace)
    advance(UP)
    workspace.post("/_emulator/faults", json={"preset": "no-gpu-capacity-on-update"})
    assert resize(workspace, pt(provisioned_model_units=150)).json()["state"]["ready"] == "READY"
    advance(UP)
    endpoint = get("units")
    assert endpoint["state"]["config_update"] == "UPDATE_FAILED"
    assert endpoint["config"]["served_entities"][0]["provisioned_model_units"] == 50


def test_pt_create_draws_the_faults_of_a_create(
    workspace: httpx.Client, advance: Advance, get: Get
) -> None:
    workspace.post("/_emulator/faults", json={"preset": "no-gpu-capacity"})
    create(workspace)
    advance(UP)
    assert get("units")["state"]["config_update"] == "UPDATE_FAILED"


@pytest.mark.parametrize("units", [50, 150])
def test_units_are_the_endpoints_budget(
    emulator: Emulator, workspace: httpx.Client, units: int
) -> None:
    create(workspace, pt(provisioned_model_units=units))
    endpoint = emulator.world.deployments.list_all(workspace.headers["Authorization"][11:])[0]
    model = emulator.world.catalog.models[UNITS]
    assert endpoint.pending is not None and model.family.tokens_per_unit is not None
    rate = provisioned_tokens_per_second(endpoint.pending.entities[0], model)
    assert rate == units * model.family.tokens_per_unit


NOT_ELIGIBLE = "Served entity {} is not eligible for Provisioned Throughput."
REFUSED: dict[str, tuple[Json, int, str, str]] = {
    "model sized in tokens": (
        pt(entity_name=TOKENS, entity_version="3"),
        400,
        INVALID,
        NOT_ELIGIBLE.format(TOKENS),
    ),
    "pay-per-token model": (
        pt(entity_name="system.ai.databricks-gpt-5"),
        400,
        INVALID,
        NOT_ELIGIBLE.format("system.ai.databricks-gpt-5"),
    ),
    "no units": (
        pt(provisioned_model_units=None),
        400,
        INVALID,
        "Missing required field: config.served_entities[0].provisioned_model_units",
    ),
    "no name": (
        pt(entity_name=None),
        400,
        INVALID,
        "Missing required field: config.served_entities[0].entity_name",
    ),
    "units off the grid": (
        pt(provisioned_model_units=60),
        400,
        INVALID,
        f"provisioned_model_units must be a positive multiple of 50 for {UNITS}, got 60.",
    ),
    "no unit at all": (
        pt(provisioned_model_units=0),
        400,
        INVALID,
        f"provisioned_model_units must be a positive multiple of 50 for {UNITS}, got 0.",
    ),
    "unknown model": (
        pt(entity_name="a.b.c"),
        404,
        "RESOURCE_DOES_NOT_EXIST",
        "Routine or Model 'a.b.c' does not exist.",
    ),
    "unknown version": (
        pt(entity_version="9"),
        404,
        "RESOURCE_DOES_NOT_EXIST",
        f"Model Version (name='{UNITS}', version=9) does not exist.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_pt_entity_is_refused(
    assert_fails: AssertFails, workspace: httpx.Client, case: str
) -> None:
    entity, status, error_code, message = REFUSED[case]
    assert_fails(create(workspace, entity), status, error_code, message)
    assert workspace.get(f"{B}/units").status_code == 404


@pytest.mark.parametrize("sized", [{}, {"provisioned_model_units": 50}], ids=str)
def test_model_sized_in_units_is_refused_on_the_older_route(
    assert_fails: AssertFails, workspace: httpx.Client, sized: Json
) -> None:
    entity = {"entity_name": UNITS, "entity_version": "1", **sized}
    body = {"name": "units", "config": {"served_entities": [entity]}}
    assert_fails(workspace.post(B, json=body), 400, INVALID, NOT_ELIGIBLE.format(UNITS))


BODIES: dict[str, tuple[str, str, Json, int, str, str]] = {
    "create without config": (
        "POST",
        "/pt",
        {"name": "a"},
        400,
        INVALID,
        "Missing required field: config",
    ),
    "create without entities": (
        "POST",
        "/pt",
        {"name": "a", "config": {}},
        400,
        INVALID,
        "At least one served entity must be specified.",
    ),
    "create with a bad name": (
        "POST",
        "/pt",
        {"name": "a b", "config": {"served_entities": [pt()]}},
        400,
        INVALID,
        "Endpoint name must be maximum 63 characters, and alphanumeric with hyphens and "
        "underscores allowed in between.",
    ),
    "update without config": (
        "PUT",
        "/pt/units/config",
        {},
        400,
        INVALID,
        "Missing required field: config",
    ),
    "update of none": (
        "PUT",
        "/pt/none/config",
        {"config": {"served_entities": [pt()]}},
        404,
        "RESOURCE_DOES_NOT_EXIST",
        "Endpoint with name 'none' does not exist.",
    ),
    "update during an update": (
        "PUT",
        "/pt/units/config",
        {"config": {"served_entities": [pt()]}},
        409,
        "RESOURCE_CONFLICT",
        "Endpoint served entities are currently being updated",
    ),
    "create a second": (
        "POST",
        "/pt",
        {"name": "units", "config": {"served_entities": [pt()]}},
        409,
        "RESOURCE_ALREADY_EXISTS",
        "Serving endpoint with name units already exists",
    ),
}


@pytest.mark.parametrize("case", BODIES)
def test_bad_pt_request_is_refused(
    assert_fails: AssertFails, workspace: httpx.Client, case: str
) -> None:
    create(workspace)
    method, path, body, status, error_code, message = BODIES[case]
    assert_fails(workspace.request(method, B + path, json=body), status, error_code, message)


def test_endpoint_named_pt_is_reached_by_its_name(workspace: httpx.Client) -> None:
    assert workspace.post(B, json={"name": "pt"}).status_code == 200
    assert workspace.get(f"{B}/pt").json()["name"] == "pt"
    assert workspace.patch(f"{B}/pt/tags", json={"add_tags": [{"key": "a"}]}).status_code == 200
    assert workspace.delete(f"{B}/pt").json() == {}


def test_foundation_models_are_listed_beside_the_endpoints(workspace: httpx.Client) -> None:
    listed = workspace.get(f"{B}:foundation-models").json()["endpoints"]
    endpoints = workspace.get(B).json()["endpoints"]
    assert listed == [
        {
            "name": endpoint["name"],
            "task": endpoint["task"],
            "capabilities": endpoint["capabilities"],
            "config": {
                "served_entities": [
                    {
                        "foundation_model": endpoint["config"]["served_entities"][0][
                            "foundation_model"
                        ]
                    }
                ]
            },
        }
        for endpoint in endpoints
    ]
    models = [one["config"]["served_entities"][0]["foundation_model"] for one in listed]
    assert all(model["ai_gateway_v2_supported"] is True and model["api_types"] for model in models)


@pytest.mark.parametrize(
    "path", ["/api/ai-gateway/v2/endpoints", "/api/2.1/unity-catalog/model-services"]
)
def test_gateway_probe_gets_the_real_404_and_says_what_there_is(
    workspace: httpx.Client, path: str
) -> None:
    answer = workspace.get(path, params={"page_size": 1})
    assert (answer.status_code, answer.json()["error_code"]) == (404, "ENDPOINT_NOT_FOUND")
    assert "serving-endpoints" in answer.headers["x-emulator-why"]
