"""Each preset, met by a real client, which sees exactly what the facts say (their rows: C, D)."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from databricks.sdk import WorkspaceClient, errors
from databricks.sdk.clock import Clock
from databricks.sdk.config import Config
from databricks.sdk.errors import OperationFailed
from databricks.sdk.errors.base import DatabricksError
from databricks.sdk.service.serving import (
    ChatMessage,
    ChatMessageRole,
    EndpointCoreConfigInput,
    ServedEntityInput,
)

from servemu.faults.presets import presets
from servemu.testing import Emulator

Json = dict[str, Any]
FAULTS = "/_emulator/faults"
NO_CAPACITY = (
    "Served entity creation aborted because the resource did not become available in time."
)
TIMED_OUT = (
    "Served model creation aborted because the endpoint update timed out. "
    "Please see service logs for more information."
)
NOT_LOADED = "Model server failed to load the model."
OVERLOADED = "Too many concurrent requests."
AT_ONCE = timedelta(seconds=0.5)
"""So that a waiter that waits fails its test instead of waiting."""
UP = 2.0
"""Seconds of the workspace's clock until an 8B serves, at a speedup of 60."""


class Sleepless(Clock):
    """The SDK's own clock: its sleeps pass at once, and are remembered."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def time(self) -> float:
        return 1e9 + sum(self.slept)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def clock() -> Sleepless:
    return Sleepless()


@pytest.fixture
def sdk(emulator: Emulator, workspace: httpx.Client, clock: Sleepless) -> WorkspaceClient:
    """databricks-sdk in the workspace of the test; it gives up after 8 s of its clock."""
    token = workspace.headers["Authorization"].removeprefix("Bearer ")
    config = Config(host=emulator.url, token=token, retry_timeout_seconds=8, clock=clock)
    return WorkspaceClient(config=config)


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """openai's pauses between attempts: they pass at once."""
    slept: list[float] = []

    class Time:
        time = staticmethod(time.time)
        sleep = staticmethod(slept.append)

    monkeypatch.setattr("openai._base_client.time", Time)
    return slept


@pytest.fixture
def chat(emulator: Emulator, workspace: httpx.Client, naps: list[float]) -> Iterator[openai.OpenAI]:
    token = workspace.headers["Authorization"].removeprefix("Bearer ")
    url = f"{emulator.url}/serving-endpoints"
    plain = openai.DefaultHttpxClient(trust_env=False, verify=False)  # no TLS: 50 ms a test
    with openai.OpenAI(base_url=url, api_key=token, http_client=plain) as client:
        yield client


@pytest.fixture
def arm(workspace: httpx.Client) -> Callable[..., str]:
    """Adds the preset, with other values for some of its fields; answers the rule's id."""

    def arm(preset: str, **fields: object) -> str:
        answer = workspace.post(FAULTS, json={"preset": preset, **fields})
        assert answer.status_code == 200, answer.text
        rule_id: str = answer.json()["id"]
        return rule_id

    return arm


@pytest.fixture
def fired(workspace: httpx.Client) -> Callable[[str], int]:
    """How often a rule hit."""

    def fired(rule_id: str) -> int:
        return int(workspace.get(f"{FAULTS}/{rule_id}").json()["fired"])

    return fired


@pytest.fixture
def llama(create: Callable[..., Json], advance: Callable[[float], None]) -> str:
    """An endpoint that serves."""
    create()
    advance(UP)
    return "llama"


def config(*names: str) -> EndpointCoreConfigInput:
    entities = [
        ServedEntityInput(
            name=name,
            entity_name="ml.llm-catalog.foundation-model",
            entity_version="3",
            min_provisioned_throughput=1580,
            max_provisioned_throughput=1580,
        )
        for name in names or ("a",)
    ]
    return EndpointCoreConfigInput(name="llama", served_entities=entities)


def ask(chat: openai.OpenAI, model: str = "llama", **fields: Any) -> Any:
    create: Any = chat.chat.completions.create
    messages = [{"role": "user", "content": "hello"}]
    return create(model=model, messages=messages, max_tokens=12, **fields)


def query(sdk: WorkspaceClient) -> object:
    message = ChatMessage(role=ChatMessageRole.USER, content="hello")
    return sdk.serving_endpoints.query("llama", messages=[message], max_tokens=12)


# --- Deployments ----------------------------------------------------------------------------------

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


# --- The control-plane API ------------------------------------------------------------------------

CREATE, UPDATE, GET = "create", "update", "get"
REFUSED: dict[str, tuple[str, type[Exception], str, int]] = {
    "model-not-found": (CREATE, errors.ResourceDoesNotExist, "does not exist.", 1),
    "creator-lost-access": (CREATE, errors.PermissionDenied, "does not have EXECUTE", 1),
    "not-eligible": (CREATE, errors.InvalidParameterValue, "is not eligible for Provisioned", 1),
    "throughput-not-enabled": (CREATE, errors.InvalidParameterValue, "is not enabled", 1),
    "serving-not-enabled": (GET, errors.NotFound, "Model serving is not enabled", 1),
    "quota-exceeded": (CREATE, errors.BadRequest, "exceeded provisioned concurrency quota", 1),
    "too-many-operations": (CREATE, TimeoutError, "Timed out after 0:00:08", 0),
    "update-conflict": (UPDATE, errors.ResourceConflict, "are currently being updated", 1),
    "api-throttled": (GET, TimeoutError, "Timed out after 0:00:08", 0),
    "api-unavailable": (GET, TimeoutError, "Timed out after 0:00:08", 0),
    "api-gateway-timeout": (GET, errors.DeadlineExceeded, "taking too long", 1),
    "api-internal-error": (GET, TimeoutError, "Timed out after 0:00:08", 0),
    "connection-reset": (GET, TimeoutError, "Timed out after 0:00:08", 0),
}
"""Attempts 0: again and again until the SDK's time is over (at least three)."""


def call(sdk: WorkspaceClient, what: str) -> None:
    if what == CREATE:
        sdk.serving_endpoints.create("new", config=config())
    elif what == UPDATE:
        sdk.serving_endpoints.update_config("llama", served_entities=config("b").served_entities)
    else:
        sdk.serving_endpoints.get("llama")


@pytest.mark.parametrize("preset", REFUSED)
def test_api_failure_raises_what_is_recorded_after_as_many_attempts(
    sdk: WorkspaceClient,
    llama: str,
    arm: Callable[..., str],
    fired: Callable[[str], int],
    preset: str,
) -> None:
    what, raised, message, attempts = REFUSED[preset]
    rule = arm(preset)
    with pytest.raises(raised, match=message):
        call(sdk, what)
    assert fired(rule) == attempts if attempts else fired(rule) >= 3


def test_throttled_once_is_tried_again_after_the_named_second(
    sdk: WorkspaceClient, clock: Sleepless, arm: Callable[..., str]
) -> None:
    arm("api-throttled", when={"times": 1})
    sdk.serving_endpoints.create("llama", config=config())
    [slept] = clock.slept
    assert 1 <= slept <= 2


@pytest.mark.parametrize("preset", ["api-slow", "never-answers"])
def test_slow_or_silent_api_runs_into_the_clients_timeout(
    workspace: httpx.Client, llama: str, arm: Callable[..., str], preset: str
) -> None:
    arm(preset)
    with pytest.raises(httpx.ReadTimeout):
        workspace.get(f"/api/2.0/serving-endpoints/{llama}", timeout=0.1)


@pytest.mark.parametrize("preset", ["create-lost", "update-lost"])
def test_lost_reply_raises_although_it_was_written(
    sdk: WorkspaceClient, llama: str, arm: Callable[..., str], preset: str
) -> None:
    rule = arm(preset)
    with pytest.raises(errors.DeadlineExceeded):
        call(sdk, CREATE if preset == "create-lost" else UPDATE)
    written = sdk.serving_endpoints.get("new" if preset == "create-lost" else llama)
    assert written.as_dict()["state"]["config_update"] == "IN_PROGRESS"
    assert rule


@pytest.mark.parametrize("preset", ["create-lost-503", "connection-lost-after-commit"])
def test_lost_create_that_is_sent_again_meets_itself(
    sdk: WorkspaceClient, arm: Callable[..., str], fired: Callable[[str], int], preset: str
) -> None:
    rule = arm(preset)
    with pytest.raises(errors.ResourceAlreadyExists):
        call(sdk, CREATE)
    assert fired(rule) == 1


# --- Queries --------------------------------------------------------------------------------------

ANSWERED: dict[str, tuple[type[openai.APIStatusError], int, int, type[Exception]]] = {
    "autoscale-lag": (openai.RateLimitError, 429, 3, TimeoutError),
    "cold-start-failed": (openai.InternalServerError, 504, 3, errors.DeadlineExceeded),
    "endpoint-not-ready": (openai.NotFoundError, 404, 1, errors.ResourceDoesNotExist),
    "endpoint-stopped": (openai.BadRequestError, 400, 1, errors.BadRequest),
    "overloaded": (openai.RateLimitError, 429, 3, TimeoutError),
    "overloaded-retry-after-130": (openai.RateLimitError, 429, 1, TimeoutError),
    "gateway-rate-limit": (openai.RateLimitError, 429, 3, TimeoutError),
    "request-timeout-408": (openai.APIStatusError, 408, 3, DatabricksError),
    "request-timeout-504": (openai.InternalServerError, 504, 3, errors.DeadlineExceeded),
    "internal-error": (openai.InternalServerError, 500, 3, errors.InternalError),
    "unavailable": (openai.InternalServerError, 503, 3, TimeoutError),
    "unavailable-plain-text": (
        openai.InternalServerError,
        503,
        3,
        errors.TemporarilyUnavailable,
    ),
    "bad-gateway": (openai.InternalServerError, 502, 3, DatabricksError),
    "bad-request": (openai.BadRequestError, 400, 1, errors.BadRequest),
    "payload-too-large": (openai.APIStatusError, 413, 1, DatabricksError),
    "entity-down": (openai.InternalServerError, 503, 3, TimeoutError),
    "told-to-retry": (openai.BadRequestError, 400, 3, errors.BadRequest),
    "told-not-to-retry": (openai.InternalServerError, 503, 1, TimeoutError),
}
"""openai's exception, status and attempts; databricks-sdk's exception."""


@pytest.mark.parametrize("preset", ANSWERED)
def test_failed_query_raises_what_is_recorded_after_as_many_attempts(
    sdk: WorkspaceClient,
    chat: openai.OpenAI,
    llama: str,
    arm: Callable[..., str],
    fired: Callable[[str], int],
    preset: str,
) -> None:
    raised, status, attempts, of_sdk = ANSWERED[preset]
    rule = arm(preset, **({"effect": {"delay": 0}} if "delay" in effect(preset) else {}))
    with pytest.raises(raised) as caught:
        ask(chat)
    assert (caught.value.status_code, fired(rule)) == (status, attempts)
    assert caught.value.response.headers["x-emulator-fault"] == rule
    with pytest.raises(of_sdk):
        query(sdk)


def effect(preset: str) -> Json:
    given: Json = presets()[preset].rule["effect"]
    return given


def test_limit_of_pay_per_token_endpoints_spares_all_others(
    chat: openai.OpenAI, llama: str, arm: Callable[..., str]
) -> None:
    arm("pay-per-token-limit")
    with pytest.raises(openai.RateLimitError, match="Exceeded workspace QPS rate limit"):
        ask(chat, "databricks-meta-llama-3-3-70b-instruct")
    assert ask(chat).choices


@pytest.mark.parametrize("preset", ["overloaded-once", "overloaded-retry-after-2"])
def test_client_that_retries_does_not_notice_one_429(
    chat: openai.OpenAI,
    naps: list[float],
    llama: str,
    arm: Callable[..., str],
    fired: Callable[[str], int],
    preset: str,
) -> None:
    rule = arm(preset)
    assert ask(chat).choices
    assert (fired(rule), len(naps)) == (1, 1)
    assert naps[0] == 2 if preset.endswith("2") else naps[0] <= 1


@pytest.mark.parametrize(
    "preset", ["cold-start", "slow-first-token", "first-byte-after-60s", "first-byte-after-120s"]
)
def test_late_first_byte_runs_into_the_clients_timeout(
    chat: openai.OpenAI, llama: str, arm: Callable[..., str], preset: str
) -> None:
    arm(preset, when={"probability": 1})
    with pytest.raises(openai.APITimeoutError):
        ask(chat.with_options(timeout=0.1, max_retries=0))
    assert effect(preset)["seconds"] in (5, 47, 61, 121)


def test_autoscale_lag_is_over_after_three_minutes(
    chat: openai.OpenAI, llama: str, arm: Callable[..., str], advance: Callable[[float], None]
) -> None:
    arm("autoscale-lag")
    advance(179)
    with pytest.raises(openai.RateLimitError, match=OVERLOADED):
        ask(chat)
    advance(1)
    assert ask(chat).choices


def test_stream_is_refused_where_streaming_is_not_supported_and_other_queries_are_not(
    chat: openai.OpenAI, llama: str, arm: Callable[..., str]
) -> None:
    arm("streaming-not-supported")
    with pytest.raises(openai.BadRequestError, match="does not support streaming"):
        ask(chat, stream=True)
    assert ask(chat).choices


# --- Streams --------------------------------------------------------------------------------------

BROKEN: dict[str, str | None] = {
    "mid-stream-cut": "RemoteProtocolError",
    "mid-stream-reset": "ReadError",
    "mid-stream-error": "APIError",
    "mid-stream-error-code": None,
    "corrupt-chunk": "JSONDecodeError",
    "truncated-stream": None,
}


@pytest.mark.parametrize("preset", BROKEN)
def test_stream_breaks_after_exactly_five_tokens_which_alone_are_counted(
    workspace: httpx.Client,
    chat: openai.OpenAI,
    llama: str,
    arm: Callable[..., str],
    fired: Callable[[str], int],
    preset: str,
) -> None:
    rule, seen = arm(preset), []
    raised: str | None = None
    try:
        for chunk in ask(chat, stream=True):
            seen.append(chunk)
    except Exception as error:
        raised = type(error.__cause__ or error).__name__  # newer clients wrap what httpx raised
    assert raised == BROKEN[preset]
    whole = [chunk for chunk in seen if chunk.choices]
    assert [chunk.usage.completion_tokens for chunk in whole] == [1, 2, 3, 4, 5]
    assert all(chunk.choices[0].finish_reason is None for chunk in whole)
    assert len(seen) - len(whole) == (1 if preset == "mid-stream-error-code" else 0)
    assert fired(rule) == 1
    entry = settled(workspace)
    if preset != "corrupt-chunk":  # behind that the stream goes on, if somebody reads it
        assert entry["tokens_out"] == 5
    assert entry["fault"] == rule


def settled(workspace: httpx.Client) -> Json:
    """The journal's entry of the one query, which ends when the emulator sees its client leave."""
    answer = workspace.get("/_emulator/requests", params={"operation": "invocations", "wait": 5})
    entry: Json = answer.json()["requests"][-1]
    return entry


@pytest.mark.parametrize("preset", ["missing-done", "missing-usage", "stalled-stream"])
def test_stream_with_a_harmless_fault_is_read_to_its_end(
    chat: openai.OpenAI, llama: str, arm: Callable[..., str], preset: str
) -> None:
    arm(preset, **({"effect": {"seconds": 0.2}} if preset == "stalled-stream" else {}))
    began = time.monotonic()
    chunks = list(ask(chat, stream=True))
    assert chunks[-1].choices[0].finish_reason == "length"
    assert all((chunk.usage is None) == (preset == "missing-usage") for chunk in chunks)
    assert time.monotonic() - began >= (0.2 if preset == "stalled-stream" else 0)


def test_missing_done_is_the_last_line_that_lacks(
    workspace: httpx.Client, llama: str, arm: Callable[..., str]
) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "stream": True}
    path = f"/serving-endpoints/{llama}/invocations"
    whole = workspace.post(path, json=body).text
    arm("missing-done")
    assert "[DONE]" in whole and "[DONE]" not in workspace.post(path, json=body).text


def test_slow_tokens_trickle(workspace: httpx.Client, llama: str, arm: Callable[..., str]) -> None:
    arm("slow-tokens", effect={"bytes_per_second": 2000})
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    began = time.monotonic()
    answer = workspace.post(f"/serving-endpoints/{llama}/invocations", json=body)
    assert time.monotonic() - began >= len(answer.content) / 2500


def test_every_preset_is_met_by_a_client_here() -> None:
    """Named in a table of this file, or in a test's own words."""
    text = Path(__file__).read_text()
    assert [name for name in presets() if f'"{name}"' not in text] == []
