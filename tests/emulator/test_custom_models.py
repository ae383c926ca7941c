"""Custom served entities: workloads, concurrency, legacy capture, what an update keeps."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

Json = dict[str, Any]
Create = Callable[..., Json]
Get = Callable[..., Json]
Advance = Callable[[float], None]
AssertFails = Callable[[httpx.Response, int, str, str], None]

B = "/api/2.0/serving-endpoints"
MODEL = "ml.llm-catalog.foundation-model"
INVALID = "INVALID_PARAMETER_VALUE"
CUSTOM = {"entity_name": MODEL, "entity_version": "3"}
UP = 60.0

TYPES = (
    "CPU, CPU_MEDIUM, CPU_LARGE, GPU_SMALL, GPU_MEDIUM, GPU_LARGE, GPU_XLARGE, GPU_XLARGE_8, "
    "MULTIGPU_MEDIUM"
)


def workload_of(created: Json) -> Json:
    [entity] = created["pending_config"]["served_entities"]
    shared = {"name", "entity_name", "entity_version", "creator", "creation_timestamp", "state"}
    return {key: value for key, value in entity.items() if key not in shared}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({}, {"workload_size": "Small", "workload_type": "CPU", "scale_to_zero_enabled": False}),
        (
            {"workload_size": "Large", "workload_type": "GPU_SMALL", "scale_to_zero_enabled": True},
            {"workload_size": "Large", "workload_type": "GPU_SMALL", "scale_to_zero_enabled": True},
        ),
        (
            {"min_provisioned_concurrency": 0, "max_provisioned_concurrency": 8},
            {
                "workload_type": "CPU",
                "scale_to_zero_enabled": False,
                "min_provisioned_concurrency": 0,
                "max_provisioned_concurrency": 8,
            },
        ),
        (
            {
                "environment_vars": {"KEY": "{{secrets/a/b}}"},
                "instance_profile_arn": "arn:aws:iam::1:instance-profile/a",
            },
            {
                "workload_size": "Small",
                "workload_type": "CPU",
                "scale_to_zero_enabled": False,
                "environment_vars": {"KEY": "{{secrets/a/b}}"},
                "instance_profile_arn": "arn:aws:iam::1:instance-profile/a",
            },
        ),
    ],
    ids=["defaults", "workload", "concurrency", "environment"],
)
def test_workload_has_its_defaults(create: Create, given: Json, shown: Json) -> None:
    assert workload_of(create("own", CUSTOM | given)) == shown


def no_workload(kind: str, size: str) -> str:
    return (
        f"Workload type '{kind}' with size '{size}' is not supported. Please choose a node type "
        f"from {TYPES} and a size from Small, Medium, Large."
    )


WORKLOADS: dict[str, tuple[Json, str]] = {
    "type": ({"workload_type": "TPU"}, no_workload("TPU", "Small")),
    "size": ({"workload_size": "small"}, no_workload("CPU", "small")),
    "size and concurrency": (
        {
            "workload_size": "Small",
            "min_provisioned_concurrency": 4,
            "max_provisioned_concurrency": 4,
        },
        "workload_size cannot be specified together with min_provisioned_concurrency and "
        "max_provisioned_concurrency.",
    ),
    "only one bound": (
        {"max_provisioned_concurrency": 4},
        "min_provisioned_concurrency and max_provisioned_concurrency must be specified together.",
    ),
    "off the grid": (
        {"min_provisioned_concurrency": 4, "max_provisioned_concurrency": 6},
        "max_provisioned_concurrency must be a multiple of 4, got 6.",
    ),
    "nothing at most": (
        {"min_provisioned_concurrency": 0, "max_provisioned_concurrency": 0},
        "max_provisioned_concurrency must be greater than 0, got 0.",
    ),
    "minimum above maximum": (
        {"min_provisioned_concurrency": 8, "max_provisioned_concurrency": 4},
        "min_provisioned_concurrency (8) must not be greater than max_provisioned_concurrency (4).",
    ),
}


@pytest.mark.parametrize("case", WORKLOADS)
def test_bad_workload_is_refused(
    assert_fails: AssertFails, workspace: httpx.Client, case: str
) -> None:
    fields, message = WORKLOADS[case]
    body = {"name": "own", "config": {"served_entities": [CUSTOM | fields]}}
    assert_fails(workspace.post(B, json=body), 400, INVALID, message)


def test_update_of_a_custom_entity_must_say_whether_it_scales_to_zero(
    assert_fails: AssertFails, workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    create("own", CUSTOM)
    advance(UP)
    path, message = f"{B}/own/config", "scaleToZeroEnabled is undefined. Please set it to either "
    answer = workspace.put(path, json={"served_entities": [CUSTOM]})
    assert_fails(answer, 400, INVALID, message + "true or false.")
    said = {"served_entities": [CUSTOM | {"scale_to_zero_enabled": False}]}
    assert workspace.put(path, json=said).status_code == 200


CAPTURE = {"catalog_name": "main", "schema_name": "s", "enabled": False}
DEPRECATED = (
    "Legacy inference tables have been deprecated. The 'auto_capture_config' field can only be "
    "used with 'enabled=false'. Please use AI Gateway inference tables instead."
)


@pytest.fixture
def captured(workspace: httpx.Client, advance: Advance) -> str:
    """An endpoint that serves, its legacy inference table off; the path of its config."""
    config = {"served_entities": [CUSTOM], "auto_capture_config": CAPTURE}
    created = workspace.post(B, json={"name": "own", "config": config}).json()
    shown = CAPTURE | {"table_name_prefix": "own"}
    assert created["pending_config"]["auto_capture_config"] == shown
    assert "auto_capture_config" not in created
    advance(UP)
    return f"{B}/own/config"


@pytest.mark.parametrize("capture", [{}, {"enabled": True}, {"catalog_name": "main"}], ids=str)
def test_legacy_inference_table_cannot_be_on(
    assert_fails: AssertFails, workspace: httpx.Client, captured: str, capture: Json
) -> None:
    config = {"served_entities": [CUSTOM], "auto_capture_config": capture}
    body = {"name": "other", "config": config}
    assert_fails(workspace.post(B, json=body), 400, INVALID, DEPRECATED)
    answer = workspace.put(captured, json={"auto_capture_config": capture})
    assert_fails(answer, 400, INVALID, DEPRECATED)


def test_place_of_a_legacy_inference_table_stays(
    assert_fails: AssertFails, workspace: httpx.Client, captured: str
) -> None:
    answer = workspace.put(captured, json={"auto_capture_config": CAPTURE | {"schema_name": "t"}})
    message = "auto_capture_config.schema_name cannot be changed from 's' to 't'."
    assert_fails(answer, 400, INVALID, message)


def test_legacy_inference_table_left_out_is_kept(
    workspace: httpx.Client, captured: str, advance: Advance, get: Get
) -> None:
    entity = CUSTOM | {"scale_to_zero_enabled": False}
    assert workspace.put(captured, json={"served_entities": [entity]}).status_code == 200
    advance(UP)
    assert get("own")["config"]["config_version"] == 2
    assert get("own")["config"]["auto_capture_config"] == CAPTURE | {"table_name_prefix": "own"}


def test_update_of_the_inference_table_alone_keeps_the_entities(
    workspace: httpx.Client, captured: str, advance: Advance, get: Get
) -> None:
    before = get("own")
    updated = workspace.put(captured, json={"auto_capture_config": {"enabled": False}})
    assert updated.status_code == 200
    assert updated.json()["config"] == before["config"]
    advance(UP)
    after = get("own")
    [old], [new] = (e["config"]["served_entities"] for e in (before, after))
    assert new | {"creation_timestamp": 0} == old | {"creation_timestamp": 0}
    assert after["config"]["traffic_config"] == before["config"]["traffic_config"]
    assert after["config"]["config_version"] == 2


def split(a: int, b: int) -> Json:
    shares = [{"served_entity_name": "a", "traffic_percentage": a}]
    return {"routes": [*shares, {"served_entity_name": "b", "traffic_percentage": b}]}


def test_update_of_the_traffic_alone_keeps_the_entities(
    workspace: httpx.Client, advance: Advance, get: Get
) -> None:
    config = {
        "served_entities": [CUSTOM | {"name": "a"}, CUSTOM | {"name": "b"}],
        "traffic_config": split(50, 50),
    }
    workspace.post(B, json={"name": "own", "config": config})
    advance(UP)
    updated = workspace.put(f"{B}/own/config", json={"traffic_config": split(10, 90)})
    assert updated.status_code == 200
    advance(UP)
    config = get("own")["config"]
    assert [entity["name"] for entity in config["served_entities"]] == ["a", "b"]
    shares = [route["traffic_percentage"] for route in config["traffic_config"]["routes"]]
    assert shares == [10, 90]


def test_bad_traffic_alone_is_refused(
    assert_fails: AssertFails, workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    create("own", CUSTOM | {"name": "a"})
    advance(UP)
    answer = workspace.put(f"{B}/own/config", json={"traffic_config": split(50, 50)})
    message = "Traffic route names unknown served entity 'b'. Served entities: a."
    assert_fails(answer, 400, INVALID, message)


@pytest.mark.parametrize("body", [{}, {"served_entities": []}, {"name": "own"}], ids=str)
def test_update_without_anything_is_refused_and_erases_nothing(
    assert_fails: AssertFails, workspace: httpx.Client, captured: str, get: Get, body: Json
) -> None:
    before = get("own")
    answer = workspace.put(captured, json=body)
    assert_fails(answer, 400, INVALID, "At least one served entity must be specified.")
    assert get("own") == before


def test_nothing_to_keep_is_refused(assert_fails: AssertFails, workspace: httpx.Client) -> None:
    workspace.post(B, json={"name": "bare"})
    answer = workspace.put(f"{B}/bare/config", json={"auto_capture_config": CAPTURE})
    assert_fails(answer, 400, INVALID, "At least one served entity must be specified.")
