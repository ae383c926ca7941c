"""Metrics are those of what was sent, in the text that Prometheus reads."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.observed import CLOCK, ENTITY, GTE, HI, START, B, refusal

from servemu.catalog import CatalogModel
from servemu.clock import PausedClock
from servemu.settings import Settings
from servemu.testing import serve
from servemu_engine.base import Embedder, Engine
from servemu_engine.synthetic import SyntheticEngine

Json = dict[str, Any]
Create = Callable[..., Json]
Advance = Callable[[float], None]
Entity = Callable[..., Json]
Connect = Callable[..., httpx.Client]


def samples(client: httpx.Client, name: str = "llama") -> dict[tuple[str, str, str], float]:
    """Series name, served entity, `le` ("" without) → value."""
    answer = client.get(f"{B}/{name}/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = text_string_to_metric_families(answer.text)
    found = [sample for family in families for sample in family.samples]
    assert {sample.labels["endpoint_name"] for sample in found} == {name}
    return {
        (
            sample.name,
            sample.labels["served_entity_name"],
            sample.labels.get("le", ""),
        ): sample.value
        for sample in found
    }


def counts(client: httpx.Client, name: str = "llama", entity: str = ENTITY) -> dict[str, float]:
    """The requests of the last minute, and of all time in the histograms."""
    found = samples(client, name)
    names = (
        "request_count_total",
        "request_4xx_count_total",
        "request_5xx_count_total",
        "request_latency_ms_count",
        "model_queue_time_ms_count",
        "model_prediction_latency_ms_count",
    )
    return {one: found[one, entity, ""] for one in names}


def test_metrics_count_what_was_sent_by_status(
    workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    create()
    advance(60)
    path = "/serving-endpoints/llama/invocations"
    chat = "/serving-endpoints/chat/completions"
    sent = [
        workspace.post(path, json={"messages": HI}),
        workspace.post(path, json={"messages": HI, "stream": True, "max_tokens": 3}),
        workspace.post(f"/serving-endpoints/llama/served-models/{ENTITY}/invocations", json={}),
        workspace.post(chat, json={"model": "llama", "messages": HI}),
        workspace.post(path, json={"seed": 1}),
        workspace.post(path, content=b"{"),
        workspace.post("/serving-endpoints/completions", json={"model": "llama", "prompt": "x"}),
        workspace.post(chat, json={"model": "other", "messages": HI}),
    ]
    assert [one.status_code for one in sent] == [200, 200, 400, 200, 400, 400, 400, 404]
    assert counts(workspace) == {
        "request_count_total": 7,
        "request_4xx_count_total": 4,
        "request_5xx_count_total": 0,
        "request_latency_ms_count": 7,
        "model_queue_time_ms_count": 3,
        "model_prediction_latency_ms_count": 3,
    }


def test_gauges_are_of_the_last_minute_and_histograms_of_all_time(
    workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    create()
    advance(60)
    for _ in range(2):
        workspace.post("/serving-endpoints/llama/invocations", json={"seed": 1})
    advance(59)
    assert counts(workspace)["request_4xx_count_total"] == 2
    advance(1)
    after = counts(workspace)
    assert (after["request_count_total"], after["request_4xx_count_total"]) == (0, 0)
    assert after["request_latency_ms_count"] == 2


def test_model_server_that_is_gone_counts_as_5xx(connect: Connect, entity: Entity) -> None:
    built: list[SyntheticEngine] = []

    def build(model: CatalogModel) -> Engine | Embedder:
        built.append(SyntheticEngine(model.family.stand_in))
        return built[-1]

    own = Settings(engine="synthetic")
    with serve(own, PausedClock(), build) as emulator, connect(emulator.url) as client:
        client.post(B, json={"name": "llama", "config": {"served_entities": [entity()]}})
        client.post(CLOCK, json={"seconds": 60})
        built[0].close()
        sent = client.post("/serving-endpoints/llama/invocations", json={"messages": HI})
        assert sent.status_code == 503
        assert counts(client)["request_5xx_count_total"] == 1


def test_all_series_of_a_gpu_entity_are_there_with_their_types(
    workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    create()
    advance(60)
    text = workspace.get(f"{B}/llama/metrics").text
    types = dict(re.findall(r"# TYPE (\S+) (\S+)", text))
    types.pop("gpu_memory_usage_percentage", None)  # only where the weights' memory is known
    assert types == {
        "cpu_usage_percentage": "gauge",
        "mem_usage_percentage": "gauge",
        "gpu_usage_percentage": "gauge",
        "provisioned_concurrent_requests_total": "gauge",
        "request_count_total": "gauge",
        "request_4xx_count_total": "gauge",
        "request_5xx_count_total": "gauge",
        "emulator_requests_in_flight": "gauge",
        "emulator_queued_requests": "gauge",
        "emulator_queued_tokens": "gauge",
        "request_latency_ms": "histogram",
        "model_queue_time_ms": "histogram",
        "model_prediction_latency_ms": "histogram",
    }
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(line.endswith(f" {START + 60_000}") for line in lines)
    edges = [le for name, _, le in samples(workspace) if name == "request_latency_ms_bucket"]
    assert (edges[0], edges[-2], edges[-1]) == ("5", "600000", "+Inf")


def test_cpu_entity_has_no_gpu_series(workspace: httpx.Client, advance: Advance) -> None:
    workspace.post(B, json={"name": "gte", "config": {"served_entities": [GTE]}})
    advance(60)
    assert not [name for name, _, _ in samples(workspace, "gte") if name.startswith("gpu_")]


def test_gpu_usage_is_the_used_share_of_the_provisioned_tokens(
    workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    create()
    advance(60)
    answer = workspace.post("/serving-endpoints/llama/invocations", json={"messages": HI})
    tokens = answer.json()["usage"]["total_tokens"]
    used = samples(workspace)["gpu_usage_percentage", ENTITY, ""]
    assert used == pytest.approx(100 * tokens / 60 / (2 * 1580))  # it stands at its minimum


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("databricks-gpt-oss-20b", "is pay-per-token: Databricks observes it."),
        ("llama", "has no metrics yet."),
    ],
)
def test_pay_per_token_and_brand_new_endpoints_have_no_metrics(
    workspace: httpx.Client, create: Create, name: str, message: str
) -> None:
    create()
    assert refusal(workspace.get(f"{B}/{name}/metrics")) == (
        404,
        "RESOURCE_DOES_NOT_EXIST",
        f"Endpoint '{name}' {message}",
    )


def test_recreated_endpoint_counts_from_zero(
    workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    create()
    advance(60)
    workspace.post("/serving-endpoints/llama/invocations", json={"messages": HI})
    workspace.delete(f"{B}/llama")
    create()
    advance(60)
    assert counts(workspace)["request_latency_ms_count"] == 0


def test_embeddings_are_counted_too(workspace: httpx.Client, advance: Advance) -> None:
    workspace.post(B, json={"name": "gte", "config": {"served_entities": [GTE]}})
    advance(60)
    answer = workspace.post("/serving-endpoints/gte/invocations", json={"input": ["a b", "c"]})
    assert answer.status_code == 200, answer.text
    name = workspace.get(f"{B}/gte").json()["config"]["served_entities"][0]["name"]
    assert counts(workspace, "gte", name)["model_prediction_latency_ms_count"] == 1
    logs = workspace.get(f"{B}/gte/served-models/{name}/logs").json()["logs"]
    tokens = answer.json()["usage"]["prompt_tokens"]
    assert f"1 (200: 1); tokens in: {tokens}, tokens out: 0\n" in logs
