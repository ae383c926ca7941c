"""Events, logs and metrics tell what happened, and the counts are those of what was sent."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate
from prometheus_client.parser import text_string_to_metric_families

from servemu.app import ROUTES
from servemu.catalog import CatalogModel
from servemu.clock import PausedClock
from servemu.residents import Build
from servemu.settings import Settings
from servemu.testing import serve
from servemu_engine.base import Embedder, Engine
from servemu_engine.errors import LoadFailed
from servemu_engine.synthetic import SyntheticEngine

Json = dict[str, Any]
Create = Callable[..., Json]
Advance = Callable[[float], None]
Entity = Callable[..., Json]
Connect = Callable[..., httpx.Client]

B = "/api/2.0/serving-endpoints"
CLOCK = "/_emulator/clock/advance"
FAULTS = "/_emulator/faults"
START = 1_750_000_000_000
"""ms: where the paused clock stands."""
ENTITY = "foundation-model-3"
HI = [{"role": "user", "content": "Hi"}]
UPDATE = "ENDPOINT_UPDATE"
CONTAINER = "SERVED_ENTITY_CONTAINER_EVENT"
LOADED = (
    "Model loaded in 0.000 s: smollm2-135m-instruct (synthetic, none on none, 0 parameters, "
    "0 bytes, context 131072 tokens)"
)
CAPACITY = "Served entity creation aborted because the resource did not become available in time."


def happened(client: httpx.Client, name: str = "llama") -> list[tuple[str, str, str, int]]:
    """type, status, message and milliseconds since the start; the oldest first."""
    answer = client.get(f"{B}/{name}/events")
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["events"]
    shown = [
        (one["event_type"], one["status"], one["message"], one["timestamp"] - START)
        for one in answer.json()["events"]
    ]
    return shown[::-1]


def log(client: httpx.Client, kind: str = "logs", **query: int) -> str:
    """The text of the log without its bracketed starts, which must be there."""
    answer = client.get(f"{B}/llama/served-models/{ENTITY}/{kind}", params=query)
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["logs"]
    start = r"\[[a-z0-9]{5}\] \[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000\] \[2\] "
    lines = answer.json()["logs"].splitlines()
    assert all(re.match(start, line) for line in lines), lines
    return "\n".join(re.sub(start, "", line) for line in lines)


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


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    return answer.status_code, answer.json()["error_code"], answer.json()["message"]


def test_events_of_a_deployment_are_newest_first_and_in_milliseconds(
    workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    create()
    advance(60)
    assert workspace.get(f"{B}/llama/events", params={"limit": 2}).json() == {
        "events": [
            {
                "event_type": UPDATE,
                "status": "NOT_UPDATING",
                "message": "Endpoint update succeeded for endpoint llama, config version 1",
                "timestamp": START + 60_000,
            },
            {
                "event_type": CONTAINER,
                "status": "DEPLOYMENT_CREATING",
                "message": f"Served entity {ENTITY}: {LOADED}",
                "timestamp": START + 60_000,
            },
        ]
    }
    assert happened(workspace)[:3] == [
        (UPDATE, "IN_PROGRESS", "Endpoint created", 0),
        (
            UPDATE,
            "IN_PROGRESS",
            "Endpoint update initiated for endpoint llama, config version 1",
            0,
        ),
        (CONTAINER, "DEPLOYMENT_CREATING", f"Served entity {ENTITY}: Container started", 0),
    ]


def test_events_of_a_lack_of_capacity_name_the_entity_and_the_endpoint(
    workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    workspace.post(FAULTS, json={"preset": "no-gpu-capacity"})
    create()
    advance(29)
    assert happened(workspace)[2:] == [
        (CONTAINER, "DEPLOYMENT_ABORTED", f"Failed to deploy {ENTITY}: {CAPACITY}", 29_000),
        (
            UPDATE,
            "UPDATE_FAILED",
            "Endpoint update failed for endpoint llama, config version 1",
            29_000,
        ),
    ]


def test_events_of_stop_and_start_show_both(
    workspace: httpx.Client, connect: Connect, advance: Advance
) -> None:
    config = {"served_entities": [{"entity_name": "ml.llm-catalog.custom", "entity_version": "1"}]}
    custom = {"ml.llm-catalog.custom": {"family": "gte-large", "versions": ["1"]}}
    own = Settings(engine="synthetic", catalog={"models": custom})
    with serve(own, PausedClock()) as emulator, connect(emulator.url) as client:
        client.post(B, json={"name": "llama", "config": config})
        client.post(CLOCK, json={"seconds": 60})
        assert client.post(f"{B}/llama/config:stop").status_code == 200
        assert client.post(f"{B}/llama/config:start").status_code == 200
        client.post(CLOCK, json={"seconds": 60})
        told = [(status, message) for _, status, message, _ in happened(client)][5:]
    loaded = "Served entity custom-1: Model loaded in 0.000 s: all-minilm-l6-v2"
    assert [(status, message.partition(" (")[0]) for status, message in told] == [
        ("DEPLOYMENT_STOPPED", "Served entity custom-1: Stopped"),
        ("IN_PROGRESS", "Endpoint update initiated for endpoint llama, config version 2"),
        ("DEPLOYMENT_CREATING", "Served entity custom-1: Container started"),
        ("DEPLOYMENT_CREATING", loaded),
        ("NOT_UPDATING", "Endpoint update succeeded for endpoint llama, config version 2"),
    ]


def test_endpoint_without_a_config_has_one_event(workspace: httpx.Client) -> None:
    workspace.post(B, json={"name": "llama"})
    assert happened(workspace) == [(UPDATE, "NOT_UPDATING", "Endpoint created", 0)]


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5", "", "99999999999999999999"])
def test_limit_that_is_no_whole_number_is_refused(
    workspace: httpx.Client, create: Create, limit: str
) -> None:
    create()
    answer = workspace.get(f"{B}/llama/events", params={"limit": limit})
    message = f"Invalid value for parameter 'limit': '{limit}'"
    assert refusal(answer) == (400, "INVALID_PARAMETER_VALUE", message)


def test_logs_tell_how_the_container_came_up_and_how_many_requests_it_answered(
    workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    create()
    advance(60)
    up = f"[INFO] Container started\n[INFO] {LOADED}"
    assert log(workspace) == up
    answer = workspace.post("/serving-endpoints/llama/invocations", json={"messages": HI})
    used = answer.json()["usage"]
    workspace.post("/serving-endpoints/llama/invocations", json={"seed": 1})
    assert log(workspace) == (
        f"{up}\n[INFO] Requests answered so far: 2 (200: 1, 400: 1); "
        f"tokens in: {used['prompt_tokens']}, tokens out: {used['completion_tokens']}"
    )
    assert log(workspace, "build-logs") == ""


@pytest.mark.parametrize("kind", ["logs", "build-logs"])
def test_logs_before_a_container_exists_are_not_found(
    workspace: httpx.Client, create: Create, advance: Advance, kind: str
) -> None:
    create()
    path = f"{B}/llama/served-models/{ENTITY}/{kind}"
    assert refusal(workspace.get(path)) == (
        404,
        "RESOURCE_DOES_NOT_EXIST",
        f"No logs of served entity '{ENTITY}' in config version 1 of endpoint 'llama': it has no "
        "container.",
    )
    advance(0.5)
    assert workspace.get(path).status_code == 200


@pytest.mark.parametrize("kind", ["logs", "build-logs"])
def test_logs_of_what_is_not_served_are_not_found(
    workspace: httpx.Client, create: Create, advance: Advance, kind: str
) -> None:
    create()
    advance(60)
    assert refusal(workspace.get(f"{B}/llama/served-models/other/{kind}")) == (
        404,
        "RESOURCE_DOES_NOT_EXIST",
        "Served entity 'other' of endpoint 'llama' does not exist.",
    )
    assert refusal(workspace.get(f"{B}/other/served-models/{ENTITY}/{kind}")) == (
        404,
        "RESOURCE_DOES_NOT_EXIST",
        "Endpoint with name 'other' does not exist.",
    )
    answer = workspace.get(f"{B}/llama/served-models/{ENTITY}/{kind}?config_version=2")
    assert answer.status_code == 404


class BrokenEngine(SyntheticEngine):
    """Fails to load as it is told."""

    def __init__(self, error: Exception) -> None:
        super().__init__("broken")
        self._error = error

    def start(self) -> None:
        raise self._error


def breaking(error: Exception) -> Build:
    """An 8B comes up, a 70B does not."""

    def build(model: CatalogModel) -> Engine | Embedder:
        return BrokenEngine(error) if model.family.stand_in == "broken" else SyntheticEngine("up")

    return build


@contextmanager
def failed(error: Exception, connect: Connect, entity: Entity) -> Iterator[httpx.Client]:
    """`llama` serves its version 1; its version 2 did not load."""
    families = {"llama-70b": {"stand_in": "broken"}}
    own = Settings(engine="synthetic", catalog={"families": families})
    slow = entity(name=ENTITY, entity_name="system.ai.llama_v3_3_70b_instruct", entity_version="1")
    with serve(own, PausedClock(), breaking(error)) as emulator, connect(emulator.url) as client:
        client.post(B, json={"name": "llama", "config": {"served_entities": [entity()]}})
        client.post(CLOCK, json={"seconds": 60})
        client.put(f"{B}/llama/config", json={"served_entities": [slow]})
        client.post(CLOCK, json={"seconds": 60})
        yield client


def test_failed_load_is_found_in_the_logs_of_its_config_version_only(
    connect: Connect, entity: Entity
) -> None:
    with failed(LoadFailed("no weights at /x"), connect, entity) as client:
        reason = "Model server failed to load the model. no weights at /x"
        assert "ERROR" not in log(client)
        lines = log(client, config_version=2).splitlines()
        assert lines[:3] == [
            "[INFO] Container started",
            "[ERROR] Model server failed to load the model.",
            "[ERROR] Traceback (most recent call last):",
        ]
        assert lines[-2:] == [
            "[ERROR] servemu_engine.errors.LoadFailed: no weights at /x",
            f"[ERROR] {reason}",
        ]
        assert happened(client)[-3:] == [
            (
                CONTAINER,
                "DEPLOYMENT_CREATING",
                f"Served entity {ENTITY}: Model server failed to load the model.",
                120_000,
            ),
            (CONTAINER, "DEPLOYMENT_FAILED", f"Failed to deploy {ENTITY}: {reason}", 120_000),
            (
                UPDATE,
                "UPDATE_FAILED",
                "Endpoint update failed for endpoint llama, config version 2",
                120_000,
            ),
        ]


def test_logs_of_a_failed_first_config_need_its_version(
    workspace: httpx.Client, connect: Connect, entity: Entity
) -> None:
    families = {"llama-70b": {"stand_in": "broken"}}
    own = Settings(engine="synthetic", catalog={"families": families})
    slow = entity(name=ENTITY, entity_name="system.ai.llama_v3_3_70b_instruct", entity_version="1")
    build = breaking(ZeroDivisionError("oops"))
    with serve(own, PausedClock(), build) as emulator, connect(emulator.url) as client:
        client.post(B, json={"name": "llama", "config": {"served_entities": [slow]}})
        client.post(CLOCK, json={"seconds": 60})
        assert client.get(f"{B}/llama/served-models/{ENTITY}/logs").status_code == 404
        assert log(client, config_version=1).endswith(
            "[ERROR] ZeroDivisionError: oops\n"
            "[ERROR] Model server failed to load the model. An error occurred in model loading "
            "code: ZeroDivisionError: oops"
        )


def test_events_and_logs_survive_a_restart_and_counts_begin_again(
    tmp_path: Path, connect: Connect, entity: Entity
) -> None:
    own = Settings(engine="synthetic", database=str(tmp_path / "state.db"))
    with serve(own, PausedClock()) as emulator, connect(emulator.url, "emu.logs") as client:
        client.post(B, json={"name": "llama", "config": {"served_entities": [entity()]}})
        client.post(CLOCK, json={"seconds": 60})
        kept = happened(client), client.get(f"{B}/llama/served-models/{ENTITY}/logs").json()
        client.post("/serving-endpoints/llama/invocations", json={"messages": HI})
    with serve(own, PausedClock()) as emulator, connect(emulator.url, "emu.logs") as client:
        again = happened(client), client.get(f"{B}/llama/served-models/{ENTITY}/logs").json()
        assert again == kept
        assert counts(client)["request_latency_ms_count"] == 0


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


def test_embeddings_are_counted_too(workspace: httpx.Client, advance: Advance) -> None:
    entity = {"entity_name": "system.ai.gte_large_en_v1_5", "entity_version": "1"}
    workspace.post(B, json={"name": "gte", "config": {"served_entities": [entity]}})
    advance(60)
    answer = workspace.post("/serving-endpoints/gte/invocations", json={"input": ["a b", "c"]})
    assert answer.status_code == 200, answer.text
    name = workspace.get(f"{B}/gte").json()["config"]["served_entities"][0]["name"]
    assert counts(workspace, "gte", name)["model_prediction_latency_ms_count"] == 1
    logs = workspace.get(f"{B}/gte/served-models/{name}/logs").json()["logs"]
    tokens = answer.json()["usage"]["prompt_tokens"]
    assert f"1 (200: 1); tokens in: {tokens}, tokens out: 0\n" in logs


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
        "request_latency_ms": "histogram",
        "model_queue_time_ms": "histogram",
        "model_prediction_latency_ms": "histogram",
    }
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(line.endswith(f" {START + 60_000}") for line in lines)
    edges = [le for name, _, le in samples(workspace) if name == "request_latency_ms_bucket"]
    assert (edges[0], edges[-2], edges[-1]) == ("5", "600000", "+Inf")


def test_cpu_entity_has_no_gpu_series(workspace: httpx.Client, advance: Advance) -> None:
    entity = {"entity_name": "system.ai.gte_large_en_v1_5", "entity_version": "1"}
    workspace.post(B, json={"name": "gte", "config": {"served_entities": [entity]}})
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
    assert used == pytest.approx(100 * tokens / 60 / (3 * 1580))


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


def test_recreated_endpoint_counts_from_zero_and_has_its_own_history(
    workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    create()
    advance(60)
    workspace.post("/serving-endpoints/llama/invocations", json={"messages": HI})
    workspace.delete(f"{B}/llama")
    create()
    advance(60)
    assert counts(workspace)["request_latency_ms_count"] == 0
    assert len(happened(workspace)) == 5


@pytest.mark.parametrize(
    ("name", "answered"),
    [
        ("llama", "ChatAnswer"),
        ("databricks-gpt-oss-20b", "ChatAnswer"),
        ("databricks-gte-large-en", "EmbeddingsAnswer"),
    ],
)
def test_openapi_of_an_endpoint_validates_and_describes_its_task(
    workspace: httpx.Client,
    create: Create,
    advance: Advance,
    *,
    name: str,
    answered: str,
) -> None:
    create()
    advance(60)
    document = workspace.get(f"{B}/{name}/openapi").json()
    validate(document)
    assert document["info"] == {"title": name, "version": "1"}
    assert document["servers"] == [{"url": f"{workspace.base_url}/serving-endpoints/{name}"}]
    entity = ENTITY if name == "llama" else name
    assert list(document["paths"]) == ["/invocations", f"/served-models/{entity}/invocations"]
    answer = document["paths"]["/invocations"]["post"]["responses"]["200"]["content"]
    schema = {"$ref": f"#/components/schemas/{answered}"}
    assert answer["application/json"] == {"schema": schema}


def test_openapi_of_an_endpoint_that_never_served_is_not_found(
    workspace: httpx.Client, create: Create
) -> None:
    create()
    assert refusal(workspace.get(f"{B}/llama/openapi")) == (
        404,
        "RESOURCE_DOES_NOT_EXIST",
        "Endpoint 'llama' serves nothing yet.",
    )


def test_openapi_of_the_emulator_validates_and_has_every_route(workspace: httpx.Client) -> None:
    document = workspace.get("/_emulator/openapi.json").json()
    validate(document)
    shown = {(path, method.upper()) for path, ops in document["paths"].items() for method in ops}
    served = {(r.path, method) for r in ROUTES for method in (r.methods or set()) - {"HEAD"}}
    assert shown == served
