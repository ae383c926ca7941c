"""Fields of an endpoint besides its config: gateway, limits, notifications, telemetry, policies."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

Json = dict[str, Any]
Create = Callable[..., Json]
Get = Callable[..., Json]
Advance = Callable[[float], None]

B = "/api/2.0/serving-endpoints"
UP = 1.5
CUSTOM = {
    "entity_name": "ml.llm-catalog.foundation-model",
    "entity_version": "3",
    "scale_to_zero_enabled": False,
}
GATEWAY = {
    "fallback_config": {"enabled": True},
    "guardrails": {
        "input": {
            "invalid_keywords": ["a"],
            "valid_topics": ["b"],
            "safety": True,
            "pii": {"behavior": "BLOCK"},
        },
        "output": {"pii": {"behavior": "MASK"}},
    },
    "inference_table_config": {
        "catalog_name": "main",
        "schema_name": "logs",
        "table_name_prefix": "p",
        "enabled": True,
    },
    "rate_limits": [
        {"calls": 10, "key": "endpoint", "renewal_period": "minute"},
        {"tokens": 5, "key": "user_group", "principal": "g", "renewal_period": "minute"},
        {"calls": 0, "key": "user", "principal": "a@example.com", "renewal_period": "minute"},
    ],
    "usage_tracking_config": {"enabled": True},
}


def put_gateway(client: httpx.Client, body: Json) -> Json:
    answer = client.put(f"{B}/llama/ai-gateway", json=body)
    assert answer.status_code == 200, answer.text
    shown: Json = answer.json()
    return shown


def test_gateway_is_answered_and_shown_as_it_was_put(
    workspace: httpx.Client, create: Create, get: Get
) -> None:
    create()
    assert put_gateway(workspace, GATEWAY) == GATEWAY
    assert get()["ai_gateway"] == GATEWAY


def test_gateway_is_replaced_whole_and_cleared_by_an_empty_one(
    workspace: httpx.Client, create: Create, get: Get
) -> None:
    create(ai_gateway=GATEWAY)
    less = {"usage_tracking_config": {"enabled": False}}
    assert put_gateway(workspace, less) == less
    assert get()["ai_gateway"] == less
    assert put_gateway(workspace, {}) == {}
    assert "ai_gateway" not in get()


def test_table_prefix_defaults_to_the_endpoints_name(
    workspace: httpx.Client, create: Create
) -> None:
    table = {"catalog_name": "main", "schema_name": "logs", "enabled": True}
    shown = {"inference_table_config": table | {"table_name_prefix": "llama"}}
    assert create(ai_gateway={"inference_table_config": table})["ai_gateway"] == shown
    assert put_gateway(workspace, {"inference_table_config": table}) == shown


def test_inference_table_moves_only_while_it_is_off(
    workspace: httpx.Client, create: Create
) -> None:
    table = {"catalog_name": "main", "schema_name": "logs", "enabled": True}
    moved = table | {"schema_name": "other"}
    create(ai_gateway={"inference_table_config": table})
    refused = workspace.put(f"{B}/llama/ai-gateway", json={"inference_table_config": moved})
    assert refused.status_code == 400
    put_gateway(workspace, {"inference_table_config": table | {"enabled": False}})
    put_gateway(workspace, {"inference_table_config": moved})


def test_gateway_of_a_pending_config_can_be_put(workspace: httpx.Client, create: Create) -> None:
    assert create()["state"]["config_update"] == "IN_PROGRESS"
    assert put_gateway(workspace, GATEWAY) == GATEWAY


def test_config_and_gateway_do_not_disturb_each_other(
    workspace: httpx.Client, create: Create, advance: Advance, get: Get
) -> None:
    create()
    put_gateway(workspace, GATEWAY)
    advance(UP)
    assert (get()["state"]["ready"], get()["ai_gateway"]) == ("READY", GATEWAY)


def test_legacy_rate_limits_are_answered_and_shown_nowhere(
    workspace: httpx.Client, create: Create, get: Get
) -> None:
    limits = [
        {"calls": 5, "key": "user", "renewal_period": "minute"},
        {"calls": 9, "renewal_period": "minute"},
    ]
    created = create(rate_limits=limits)
    answer = workspace.put(f"{B}/llama/rate-limits", json={"rate_limits": limits})
    assert (answer.status_code, answer.json()) == (200, {"rate_limits": limits})
    assert "rate_limits" not in created.keys() | get().keys()
    assert workspace.put(f"{B}/llama/rate-limits", json={}).json() == {"rate_limits": []}


def test_notifications_answer_the_name_and_themselves(
    workspace: httpx.Client, create: Create, get: Get
) -> None:
    mails = {"on_update_success": ["a@example.com"], "on_update_failure": ["b@example.com"]}
    assert "email_notifications" not in create(email_notifications=mails)
    path = f"{B}/llama/notifications"
    answer = workspace.patch(path, json={"email_notifications": mails})
    shown = {"name": "llama", "email_notifications": mails}
    assert (answer.status_code, answer.json()) == (200, shown)
    assert workspace.patch(path, json={}).json() == shown
    assert get()["email_notifications"] == mails


@pytest.fixture
def up(workspace: httpx.Client, create: Create, advance: Advance) -> str:
    """A custom endpoint that serves; the path of its telemetry."""
    create("llama", CUSTOM)
    advance(60)
    return f"{B}/llama/telemetry-config"


TABLES = {"logs_table": "main.t.logs", "metrics_table": "main.t.metrics"}


def test_table_names_become_a_profile(workspace: httpx.Client, up: str, get: Get) -> None:
    asked = {"table_names": TABLES, "inference_table_config": {"sampling_fraction": 0.5}}
    answer = workspace.patch(up, json={"telemetry_config": asked}).json()
    profile = answer["telemetry_config"]["telemetry_profile_id"]
    assert len(profile) == 36
    assert answer["telemetry_config"] == {
        "telemetry_profile_id": profile,
        "inference_table_config": {"name": "main.t.logs_payload", "sampling_fraction": 0.5},
    }
    assert get() == answer
    again = workspace.patch(up, json={"telemetry_config": asked}).json()
    assert again["telemetry_config"]["telemetry_profile_id"] != profile


def test_profile_of_ones_own_is_kept(workspace: httpx.Client, up: str) -> None:
    asked = {
        "telemetry_profile_id": "p",
        "enabled_telemetry_features": ["TELEMETRY_FEATURE_LOGS", "TELEMETRY_FEATURE_TRACES"],
    }
    assert workspace.patch(up, json={"telemetry_config": asked}).json()["telemetry_config"] == asked


def test_telemetry_without_tables_or_profile_changes_nothing(
    workspace: httpx.Client, up: str
) -> None:
    asked: Json = {"telemetry_config": {"telemetry_profile_id": "p"}}
    workspace.patch(up, json=asked)
    kept = workspace.patch(up, json={"telemetry_config": {"enabled_telemetry_features": []}})
    assert kept.json()["telemetry_config"] == asked["telemetry_config"]


def test_telemetry_left_out_is_removed(workspace: httpx.Client, up: str, get: Get) -> None:
    workspace.patch(up, json={"telemetry_config": {"telemetry_profile_id": "p"}})
    assert "telemetry_config" not in workspace.patch(up, json={}).json()
    assert "telemetry_config" not in get()


def test_telemetry_is_dropped_without_a_word_where_there_is_none(
    workspace: httpx.Client, create: Create
) -> None:
    telemetry = {"telemetry_profile_id": "p"}
    bare = workspace.post(B, json={"name": "bare", "telemetry_config": telemetry})
    assert (bare.status_code, "telemetry_config" in bare.json()) == (200, False)
    assert create("llama", CUSTOM, telemetry_config=telemetry)["telemetry_config"] == telemetry


def test_policies_show_under_their_own_names(
    workspace: httpx.Client, create: Create, get: Get
) -> None:
    create(budget_policy_id="b", usage_policy_id="u")
    [item] = [e for e in workspace.get(B).json()["endpoints"] if e["name"] == "llama"]
    assert (get()["effective_budget_policy_id"], item["usage_policy_id"]) == ("b", "u")
    assert not get().keys() & {"budget_policy_id", "usage_policy_id"}


def test_description_is_echoed_always(workspace: httpx.Client, create: Create) -> None:
    assert create("a", description="ours")["description"] == "ours"
    assert create("b")["description"] == ""


INVALID = "INVALID_PARAMETER_VALUE"
AssertFails = Callable[[httpx.Response, int, str, str], None]


def invalid(field: str, problem: str, given: str) -> str:
    return f"Invalid value for field '{field}': {problem} (given: {given})"


LIMIT = "rate_limits[0]"
BODIES: dict[str, tuple[str, str, Json, str]] = {
    "gateway: behavior": (
        "PUT",
        "ai-gateway",
        {"guardrails": {"input": {"pii": {"behavior": "HIDE"}}}},
        invalid(
            "guardrails.input.pii.behavior",
            "Input should be 'NONE', 'BLOCK' or 'MASK'",
            '"HIDE"',
        ),
    ),
    "gateway: period": (
        "PUT",
        "ai-gateway",
        {"rate_limits": [{"calls": 1, "renewal_period": "hour"}]},
        invalid(f"{LIMIT}.renewal_period", "Input should be 'minute'", '"hour"'),
    ),
    "gateway: no period": (
        "PUT",
        "ai-gateway",
        {"rate_limits": [{"calls": 1}]},
        f"Missing required field: {LIMIT}.renewal_period",
    ),
    "gateway: negative": (
        "PUT",
        "ai-gateway",
        {"rate_limits": [{"tokens": -1, "renewal_period": "minute"}]},
        invalid(f"{LIMIT}.tokens", "Input should be greater than or equal to 0", "-1"),
    ),
    "gateway: principal of the endpoint": (
        "PUT",
        "ai-gateway",
        {"rate_limits": [{"principal": "a", "renewal_period": "minute"}]},
        invalid(
            LIMIT,
            "the key endpoint has no principal",
            '{"principal": "a", "renewal_period": "minute"}',
        ),
    ),
    "gateway: group without principal": (
        "PUT",
        "ai-gateway",
        {"rate_limits": [{"key": "user_group", "renewal_period": "minute"}]},
        invalid(
            LIMIT,
            "this key needs a principal",
            '{"key": "user_group", "renewal_period": "minute"}',
        ),
    ),
    "gateway: fallback without enabled": (
        "PUT",
        "ai-gateway",
        {"fallback_config": {}},
        "Missing required field: fallback_config.enabled",
    ),
    "gateway: table without a place": (
        "PUT",
        "ai-gateway",
        {"inference_table_config": {"enabled": True}},
        invalid(
            "inference_table_config",
            "catalog_name and schema_name are required to enable it",
            '{"enabled": true}',
        ),
    ),
    "limits: key": (
        "PUT",
        "rate-limits",
        {"rate_limits": [{"calls": 1, "key": "user_group", "renewal_period": "minute"}]},
        invalid(f"{LIMIT}.key", "Input should be 'user' or 'endpoint'", '"user_group"'),
    ),
    "limits: no calls": (
        "PUT",
        "rate-limits",
        {"rate_limits": [{"renewal_period": "minute"}]},
        f"Missing required field: {LIMIT}.calls",
    ),
    "notifications: a string": (
        "PATCH",
        "notifications",
        {"email_notifications": {"on_update_failure": "a@example.com"}},
        invalid(
            "email_notifications.on_update_failure", "Input should be an array", '"a@example.com"'
        ),
    ),
    "telemetry: feature": (
        "PATCH",
        "telemetry-config",
        {"telemetry_config": {"enabled_telemetry_features": ["LOGS"]}},
        invalid(
            "telemetry_config.enabled_telemetry_features[0]",
            "Input should be 'TELEMETRY_FEATURE_LOGS', 'TELEMETRY_FEATURE_TRACES', "
            "'TELEMETRY_FEATURE_METRICS' or 'TELEMETRY_FEATURE_INFERENCE_TABLE'",
            '"LOGS"',
        ),
    ),
    "telemetry: fraction": (
        "PATCH",
        "telemetry-config",
        {"telemetry_config": {"inference_table_config": {"sampling_fraction": 2}}},
        invalid(
            "telemetry_config.inference_table_config.sampling_fraction",
            "Input should be less than or equal to 1",
            "2",
        ),
    ),
    "telemetry: profile and tables": (
        "PATCH",
        "telemetry-config",
        {"telemetry_config": {"telemetry_profile_id": "p", "table_names": {}}},
        invalid(
            "telemetry_config",
            "telemetry_profile_id and table_names exclude each other",
            '{"telemetry_profile_id": "p", "table_names": {}}',
        ),
    ),
}


@pytest.mark.parametrize("case", BODIES)
def test_bad_setting_is_refused(
    assert_fails: AssertFails, workspace: httpx.Client, create: Create, case: str
) -> None:
    create()
    method, path, body, message = BODIES[case]
    answer = workspace.request(method, f"{B}/llama/{path}", json=body)
    assert_fails(answer, 400, INVALID, message)


NO_TELEMETRY = (
    "Telemetry configuration is not supported for endpoint type '{}'. This API only supports "
    "endpoints with custom served models."
)
EXTERNAL = {
    "provider": "openai",
    "name": "m",
    "task": "llm/v1/chat",
    "openai_config": {"openai_api_key": "{{secrets/a/b}}"},
}
TELEMETRY: dict[str, tuple[Json, int, str, str]] = {
    "without config": ({}, 400, INVALID, NO_TELEMETRY.format("NO_CONFIG")),
    "of an external model": (
        {"config": {"served_entities": [{"external_model": EXTERNAL}]}},
        400,
        INVALID,
        NO_TELEMETRY.format("EXTERNAL_MODELS"),
    ),
    "during an update": (
        {"config": {"served_entities": [CUSTOM]}},
        409,
        "RESOURCE_CONFLICT",
        "Endpoint slow is currently updating. Wait for the update to complete before updating its "
        "telemetry configuration.",
    ),
}


@pytest.mark.parametrize("case", TELEMETRY)
def test_telemetry_is_refused(
    assert_fails: AssertFails, workspace: httpx.Client, case: str
) -> None:
    fields, status, error_code, message = TELEMETRY[case]
    assert workspace.post(B, json={"name": "slow"} | fields).status_code == 200
    if status == 400:
        workspace.post("/_emulator/clock/advance", json={"seconds": 1})
    answer = workspace.patch(f"{B}/slow/telemetry-config", json={})
    assert_fails(answer, status, error_code, message)
