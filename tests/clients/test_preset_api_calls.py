"""Presets that fail calls of the control plane, met by databricks-sdk (facts: rows C, D)."""

from collections.abc import Callable

import httpx
import pytest
from databricks.sdk import WorkspaceClient, errors
from tests.preset_clients import Sleepless, config

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
    sdk: WorkspaceClient,
    llama: str,
    arm: Callable[..., str],
    fired: Callable[[str], int],
    preset: str,
) -> None:
    rule = arm(preset)
    with pytest.raises(errors.DeadlineExceeded):
        call(sdk, CREATE if preset == "create-lost" else UPDATE)
    written = sdk.serving_endpoints.get("new" if preset == "create-lost" else llama)
    assert written.as_dict()["state"]["config_update"] == "IN_PROGRESS"
    assert fired(rule) == 1


@pytest.mark.parametrize("preset", ["create-lost-503", "connection-lost-after-commit"])
def test_lost_create_that_is_sent_again_meets_itself(
    sdk: WorkspaceClient, arm: Callable[..., str], fired: Callable[[str], int], preset: str
) -> None:
    rule = arm(preset)
    with pytest.raises(errors.ResourceAlreadyExists):
        call(sdk, CREATE)
    assert fired(rule) == 1
