"""Create, get, list, delete, update config, tags: the bodies as the real service sends them."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

Json = dict[str, Any]
Create = Callable[..., Json]
Get = Callable[..., Json]
Advance = Callable[[float], None]
Entity = Callable[..., Json]

B = "/api/2.0/serving-endpoints"
MODEL = "ml.llm-catalog.foundation-model"
START = 1_750_000_000_000
UP = 1.5
"""Seconds of a workspace's clock after which an 8B is up: 90 real ones, divided by 60."""


def split(*shares: tuple[str, int]) -> Json:
    routes = [{"served_entity_name": name, "traffic_percentage": share} for name, share in shares]
    return {"routes": routes}


def shown_entity(deployment: str, message: str, **fields: object) -> Json:
    """A served entity of `entity` in an answer."""
    return {
        "name": "foundation-model-3",
        "entity_name": MODEL,
        "entity_version": "3",
        "min_provisioned_throughput": 3160,
        "max_provisioned_throughput": 4740,
        "workload_size": "Small",
        "workload_type": "GPU_XLARGE_8",
        "scale_to_zero_enabled": False,
        "min_dbus": 212.0,
        "max_dbus": 318.0,
        "creator": "me@example.com",
        "creation_timestamp": START,
        "state": {"deployment": deployment, "deployment_state_message": message},
        **fields,
    }


def as_model(entity: Json) -> Json:
    """The same under its older words (facts/control_plane §2.3)."""
    words = {"entity_name": "model_name", "entity_version": "model_version"}
    return {words.get(key, key): value for key, value in entity.items()}


def shown_config(version: int, entity: Json) -> Json:
    """A config of one entity in an answer."""
    route = {
        "served_model_name": entity["name"],
        "served_entity_name": entity["name"],
        "traffic_percentage": 100,
    }
    return {
        "served_entities": [entity],
        "served_models": [as_model(entity)],
        "traffic_config": {"routes": [route]},
        "config_version": version,
    }


def shown_endpoint(**fields: object) -> Json:
    """All of an endpoint's body but id, state and configs."""
    return {
        "name": "llama",
        "creator": "me@example.com",
        "creation_timestamp": START,
        "last_updated_timestamp": START,
        "tags": [],
        "permission_level": "CAN_MANAGE",
        "route_optimized": False,
        "description": "",
        "creator_display_name": "me@example.com",
        "creator_kind": "User",
        "resource_credential_strategy": "EMBEDDED_CREDENTIALS",
        **fields,
    }


def state(ready: str, config_update: str) -> Json:
    return {"ready": ready, "config_update": config_update, "suspend": "NOT_SUSPENDED"}


def test_create_answers_the_recorded_body(create: Create) -> None:
    created = create()
    creating = shown_entity("DEPLOYMENT_CREATING", "Creating resources for served entity.")
    assert created == shown_endpoint(
        id=created["id"],
        state=state("NOT_READY", "IN_PROGRESS"),
        pending_config=shown_config(1, creating) | {"start_time": START},
        task="llm/v1/chat",
    )
    assert len(created["id"]) == 32 and int(created["id"], 16) >= 0


def test_ready_endpoint_has_its_config_and_nothing_pending(
    create: Create, advance: Advance, get: Get
) -> None:
    created = create()
    advance(UP)
    assert get() == shown_endpoint(
        id=created["id"],
        last_updated_timestamp=START + 1000,
        state=state("READY", "NOT_UPDATING"),
        config=shown_config(1, shown_entity("DEPLOYMENT_READY", "")),
        task="llm/v1/chat",
    )


def test_get_answers_what_create_answered(create: Create, get: Get) -> None:
    assert create() == get()


def own(listing: httpx.Response) -> list[Json]:
    return [endpoint for endpoint in listing.json()["endpoints"] if "id" in endpoint]


def test_list_item_has_a_summary_of_the_config(
    workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    created = create()
    advance(UP)
    entity = {"name": "foundation-model-3", "entity_name": MODEL, "entity_version": "3"}
    assert own(workspace.get(B)) == [
        shown_endpoint(
            id=created["id"],
            last_updated_timestamp=START + 1000,
            state=state("READY", "NOT_UPDATING"),
            config={"served_entities": [entity], "served_models": [as_model(entity)]},
            task="llm/v1/chat",
        )
    ]


def test_list_item_that_is_coming_up_has_no_config(workspace: httpx.Client, create: Create) -> None:
    created = create()
    shown = shown_endpoint(
        id=created["id"], state=state("NOT_READY", "IN_PROGRESS"), task="llm/v1/chat"
    )
    assert own(workspace.get(B)) == [shown]


def test_list_is_in_order_of_creation(
    workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    for name in ("b", "c", "a"):
        create(name)
        advance(0.1)
    assert [endpoint["name"] for endpoint in own(workspace.get(B))] == ["b", "c", "a"]


@pytest.mark.parametrize("path", [B + "/", B + "//", B + "?", B + "/?"])
def test_slash_and_empty_query_change_nothing(
    workspace: httpx.Client, create: Create, path: str
) -> None:
    create()
    assert workspace.get(path).json() == workspace.get(B).json()


def test_every_route_takes_a_trailing_slash(workspace: httpx.Client, entity: Entity) -> None:
    config = {"served_entities": [entity()]}
    assert workspace.post(f"{B}/", json={"name": "llama"}).status_code == 200
    assert workspace.get(f"{B}/llama/").status_code == 200
    assert workspace.put(f"{B}/llama/config/", json=config).status_code == 200
    assert workspace.patch(f"{B}/llama/tags/", json={}).status_code == 200
    assert workspace.delete(f"{B}/llama/").status_code == 200


def test_delete_answers_an_empty_object_and_get_404_afterwards(
    workspace: httpx.Client, create: Create
) -> None:
    create()
    deleted = workspace.delete(f"{B}/llama")
    assert (deleted.status_code, deleted.json()) == (200, {})
    assert workspace.get(f"{B}/llama").status_code == 404
    assert workspace.delete(f"{B}/llama").status_code == 404
    assert own(workspace.get(B)) == []


def test_recreated_endpoint_has_a_new_id_and_starts_again(
    workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    first = create()
    advance(UP)
    workspace.delete(f"{B}/llama")
    again = create()
    assert again["id"] != first["id"]
    assert again["pending_config"]["config_version"] == 1
    assert again["state"] == state("NOT_READY", "IN_PROGRESS")


def test_name_in_config_is_ignored(workspace: httpx.Client, entity: Entity) -> None:
    config = {"name": "other", "served_entities": [entity()]}
    created = workspace.post(B, json={"name": "llama", "config": config}).json()
    assert created["name"] == "llama"
    assert "name" not in created["pending_config"]


def test_unknown_fields_are_ignored(workspace: httpx.Client, entity: Entity) -> None:
    config = {"served_entities": [entity(color="crimson")], "color": "crimson"}
    created = workspace.post(B, json={"name": "llama", "config": config, "color": "crimson"})
    assert created.status_code == 200
    assert "crimson" not in created.text


def test_null_is_the_same_as_absent(workspace: httpx.Client, entity: Entity) -> None:
    nothing = ["description", "tags", "route_optimized", "rate_limits", "ai_gateway"]
    given = entity() | dict.fromkeys(["name", "external_model", "scale_to_zero_enabled"])
    config = {
        "name": None,
        "served_entities": [given],
        "served_models": None,
        "traffic_config": {"routes": None},
    }
    body = {"name": "llama", "config": config, **dict.fromkeys(nothing)}
    created = workspace.post(B, json=body).json()
    creating = shown_entity("DEPLOYMENT_CREATING", "Creating resources for served entity.")
    assert created == shown_endpoint(
        id=created["id"],
        state=state("NOT_READY", "IN_PROGRESS"),
        pending_config=shown_config(1, creating) | {"start_time": START},
        task="llm/v1/chat",
    )
    assert workspace.patch(f"{B}/llama/tags", json={"add_tags": None}).json() == {"tags": []}


def test_served_models_are_the_same_as_served_entities(
    workspace: httpx.Client, entity: Entity
) -> None:
    config = {"served_models": [as_model(entity())]}
    created = workspace.post(B, json={"name": "llama", "config": config}).json()
    creating = shown_entity("DEPLOYMENT_CREATING", "Creating resources for served entity.")
    assert created["pending_config"] == shown_config(1, creating) | {"start_time": START}


@pytest.mark.parametrize(
    "fields",
    [
        {"entity_version": 3},
        {"min_provisioned_throughput": "3160", "max_provisioned_throughput": "4740"},
        {"max_provisioned_throughput": 4740.0},
        {"scale_to_zero_enabled": False},
        {"workload_size": "Small", "workload_type": "GPU_MEDIUM"},
        {"name": None},
    ],
    ids=str,
)
def test_spellings_of_the_same_entity(create: Create, entity: Entity, fields: Json) -> None:
    pending = create("llama", entity(**fields))["pending_config"]
    creating = shown_entity("DEPLOYMENT_CREATING", "Creating resources for served entity.")
    assert pending["served_entities"] == [creating]


def test_given_fields_are_echoed_and_write_only_ones_are_not(
    create: Create, entity: Entity
) -> None:
    given = {
        "name": "mine",
        "scale_to_zero_enabled": True,
        "environment_vars": {"TOKEN": "{{secrets/a/b}}"},
        "instance_profile_arn": "arn:aws:iam::1:instance-profile/a",
        "min_provisioned_throughput": 0,
    }
    [shown] = create("llama", entity(burst_scaling_enabled=True, **given))["pending_config"][
        "served_entities"
    ]
    creating = "Creating resources for served entity."
    assert shown == shown_entity("DEPLOYMENT_CREATING", creating, **given, min_dbus=0.0)


@pytest.mark.parametrize(
    ("fields", "band"),
    [
        ({"min_provisioned_throughput": None}, (4740, 4740)),
        ({"min_provisioned_throughput": None, "scale_to_zero_enabled": True}, (0, 4740)),
        ({"min_provisioned_throughput": 1, "max_provisioned_throughput": 1581}, (1, 1581)),
    ],
    ids=str,
)
def test_band_has_its_defaults_and_stays_off_the_grid(
    create: Create, entity: Entity, fields: Json, band: tuple[int, int]
) -> None:
    [shown] = create("llama", entity(**fields))["pending_config"]["served_entities"]
    assert (shown["min_provisioned_throughput"], shown["max_provisioned_throughput"]) == band


def test_several_entities_share_the_traffic_under_both_names(
    workspace: httpx.Client, entity: Entity
) -> None:
    config = {
        "served_entities": [entity(name="a"), entity(name="b"), entity(name="idle")],
        "traffic_config": {
            "routes": [
                {"served_model_name": "a", "traffic_percentage": 70},
                {"served_entity_name": "b", "traffic_percentage": 30},
            ]
        },
    }
    pending = workspace.post(B, json={"name": "llama", "config": config}).json()["pending_config"]
    assert [served["name"] for served in pending["served_entities"]] == ["a", "b", "idle"]
    assert pending["traffic_config"]["routes"] == [
        {"served_model_name": "a", "served_entity_name": "a", "traffic_percentage": 70},
        {"served_model_name": "b", "served_entity_name": "b", "traffic_percentage": 30},
    ]


def test_fifteen_entities_are_accepted(workspace: httpx.Client, entity: Entity) -> None:
    entities = [entity(name=f"e{n}") for n in range(15)]
    config = {"served_entities": entities, "traffic_config": split(("e0", 100))}
    assert workspace.post(B, json={"name": "llama", "config": config}).status_code == 200


def test_settings_of_the_endpoint_are_echoed(create: Create) -> None:
    given = {
        "description": "ours",
        "ai_gateway": {"usage_tracking_config": {"enabled": True}},
        "tags": [{"key": "team", "value": "a"}, {"key": "bare"}],
    }
    created = create(**given, budget_policy_id="p", email_notifications={"on_update_failure": []})
    shown = {key: created[key] for key in given}
    assert shown == given | {"tags": [{"key": "team", "value": "a"}, {"key": "bare", "value": ""}]}
    assert created["effective_budget_policy_id"] == "p"
    assert not created.keys() & {"budget_policy_id", "email_notifications"}


def test_update_answers_the_old_config_serving_and_the_new_one_pending(
    workspace: httpx.Client, create: Create, advance: Advance, entity: Entity, get: Get
) -> None:
    created = create()
    advance(UP)
    config = {"served_entities": [entity(max_provisioned_throughput=6320)]}
    updated = workspace.put(f"{B}/llama/config", json=config)
    new = {
        "max_provisioned_throughput": 6320,
        "max_dbus": 424.0,
        "creation_timestamp": START + 1000,
    }
    creating = shown_entity("DEPLOYMENT_CREATING", "Creating resources for served entity.", **new)
    assert updated.status_code == 200
    assert updated.json() == shown_endpoint(
        id=created["id"],
        last_updated_timestamp=START + 1000,
        state=state("READY", "IN_PROGRESS"),
        config=shown_config(1, shown_entity("DEPLOYMENT_READY", "")),
        pending_config=shown_config(2, creating) | {"start_time": START + 1000},
        task="llm/v1/chat",
    )
    advance(UP)
    assert get()["config"] == shown_config(2, shown_entity("DEPLOYMENT_READY", "", **new))


def test_task_changes_when_the_new_config_serves(
    workspace: httpx.Client, create: Create, advance: Advance, entity: Entity, get: Get
) -> None:
    create()
    advance(UP)
    gte = entity(entity_name="system.ai.gte_large_en_v1_5", entity_version="1")
    updated = workspace.put(f"{B}/llama/config", json={"served_entities": [gte]})
    assert updated.json()["task"] == "llm/v1/chat"
    advance(600)
    assert get()["task"] == "llm/v1/embeddings"


def test_endpoint_without_config_waits_for_one(
    workspace: httpx.Client, entity: Entity, advance: Advance, get: Get
) -> None:
    created = workspace.post(B, json={"name": "llama"}).json()
    bare = shown_endpoint(id=created["id"], state=state("NOT_READY", "NOT_UPDATING"))
    assert created == bare
    advance(3600)
    assert get() == bare
    updated = workspace.put(f"{B}/llama/config", json={"served_entities": [entity()]}).json()
    assert updated["pending_config"]["config_version"] == 1
    assert updated["state"] == state("NOT_READY", "IN_PROGRESS")
    advance(UP)
    assert get()["state"] == state("READY", "NOT_UPDATING")
