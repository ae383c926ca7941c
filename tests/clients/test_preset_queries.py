"""Presets that fail queries, met by openai and databricks-sdk (facts: rows C, D)."""

from collections.abc import Callable

import openai
import pytest
from databricks.sdk import WorkspaceClient, errors
from databricks.sdk.errors.base import DatabricksError
from tests.preset_clients import ask, effect, query

OVERLOADED = "Too many concurrent requests."
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
    ("preset", "seconds"),
    [
        ("cold-start", 47),
        ("slow-first-token", 5),
        ("first-byte-after-60s", 61),
        ("first-byte-after-120s", 121),
    ],
)
def test_late_first_byte_runs_into_the_clients_timeout(
    chat: openai.OpenAI, llama: str, arm: Callable[..., str], preset: str, seconds: float
) -> None:
    arm(preset, when={"probability": 1})
    with pytest.raises(openai.APITimeoutError):
        ask(chat.with_options(timeout=0.1, max_retries=0))
    assert effect(preset)["seconds"] == seconds


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
