"""databricks-sdk, unmodified, on the rest of the control plane; the synthetic engine is enough."""

import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import BadRequest, InvalidParameterValue, ResourceConflict
from databricks.sdk.service import serving as api
from databricks.sdk.service.serving import ServingEndpointDetailed

from servemu.settings import Settings
from servemu.testing import Emulator, serve

Connect = Callable[..., httpx.Client]
Advance = Callable[[float], None]

MODEL = "ml.llm-catalog.foundation-model"
UNITS = "system.ai.gpt-oss-120b"


@pytest.fixture
def sdk(emulator: Emulator, token: str) -> WorkspaceClient:
    return WorkspaceClient(host=emulator.url, token=token)


@pytest.fixture
def endpoints(sdk: WorkspaceClient) -> api.ServingEndpointsAPI:
    return sdk.serving_endpoints


@pytest.fixture
def later(emulator: Emulator, token: str, connect: Connect) -> Advance:
    """Moves the clock of the same workspace."""

    def later(seconds: float) -> None:
        with connect(emulator.url, token) as client:
            body = {"seconds": seconds}
            assert client.post("/_emulator/clock/advance", json=body).status_code == 200

    return later


@pytest.fixture
def own(endpoints: api.ServingEndpointsAPI, later: Advance) -> ServingEndpointDetailed:
    """The endpoint `own` with a custom model, which serves."""
    entity = api.ServedEntityInput(
        entity_name=MODEL, entity_version="3", workload_size="Small", scale_to_zero_enabled=True
    )
    config = api.EndpointCoreConfigInput(name="own", served_entities=[entity])
    endpoints.create("own", config=config)
    later(60)
    return endpoints.get("own")


@pytest.mark.usefixtures("own")
def test_put_rate_limits(endpoints: api.ServingEndpointsAPI) -> None:
    limit = api.RateLimit(
        calls=10, key=api.RateLimitKey.USER, renewal_period=api.RateLimitRenewalPeriod.MINUTE
    )
    assert endpoints.put("own", rate_limits=[limit]).rate_limits == [limit]


@pytest.mark.usefixtures("own")
def test_put_ai_gateway_is_shown_by_get_and_list(endpoints: api.ServingEndpointsAPI) -> None:
    table = api.AiGatewayInferenceTableConfig(
        catalog_name="main", schema_name="logs", table_name_prefix="p", enabled=True
    )
    pii = api.AiGatewayGuardrailPiiBehavior(api.AiGatewayGuardrailPiiBehaviorBehavior.MASK)
    given: dict[str, Any] = {
        "fallback_config": api.FallbackConfig(enabled=True),
        "guardrails": api.AiGatewayGuardrails(
            input=api.AiGatewayGuardrailParameters(safety=True, pii=pii)
        ),
        "inference_table_config": table,
        "rate_limits": [
            api.AiGatewayRateLimit(
                renewal_period=api.AiGatewayRateLimitRenewalPeriod.MINUTE,
                calls=5,
                key=api.AiGatewayRateLimitKey.ENDPOINT,
            )
        ],
        "usage_tracking_config": api.AiGatewayUsageTrackingConfig(enabled=True),
    }
    put = endpoints.put_ai_gateway("own", **given)
    assert put.as_dict() == api.AiGatewayConfig(**given).as_dict()
    assert endpoints.get("own").ai_gateway == api.AiGatewayConfig(**given)
    listed = {endpoint.name: endpoint.ai_gateway for endpoint in endpoints.list()}
    assert listed["own"] == api.AiGatewayConfig(**given)
    assert endpoints.put_ai_gateway("own").as_dict() == {}
    assert endpoints.get("own").ai_gateway is None


@pytest.mark.usefixtures("own")
def test_update_notifications(endpoints: api.ServingEndpointsAPI) -> None:
    mails = api.EmailNotifications(on_update_failure=["a@example.com"])
    answer = endpoints.update_notifications("own", email_notifications=mails)
    assert (answer.name, answer.email_notifications) == ("own", mails)


@pytest.mark.usefixtures("own")
def test_patch_telemetry_config(endpoints: api.ServingEndpointsAPI) -> None:
    asked = api.TelemetryConfig(
        enabled_telemetry_features=[api.TelemetryFeature.TELEMETRY_FEATURE_INFERENCE_TABLE],
        table_names=api.UnityCatalogTableNames(logs_table="main.t.logs"),
    )
    telemetry = endpoints.patch_telemetry_config("own", telemetry_config=asked).telemetry_config
    assert telemetry is not None and telemetry.inference_table_config is not None
    assert telemetry.telemetry_profile_id and telemetry.table_names is None
    assert telemetry.inference_table_config.name == "main.t.logs_payload"
    assert endpoints.patch_telemetry_config("own").telemetry_config is None


def test_telemetry_during_an_update_conflicts(endpoints: api.ServingEndpointsAPI) -> None:
    entity = api.ServedEntityInput(entity_name=MODEL, entity_version="3")
    config = api.EndpointCoreConfigInput(name="own", served_entities=[entity])
    endpoints.create("own", config=config)
    with pytest.raises(ResourceConflict, match="Endpoint own is currently updating"):
        endpoints.patch_telemetry_config("own")


def test_stop_and_start_by_raw_calls(
    sdk: WorkspaceClient,
    endpoints: api.ServingEndpointsAPI,
    own: ServingEndpointDetailed,
    later: Advance,
) -> None:
    """The SDK has no methods for them; it maps what it does not know to None."""
    path = f"/api/2.0/serving-endpoints/{own.name}/config"
    sdk.api_client.do("POST", f"{path}:stop")
    stopped = endpoints.get("own")
    assert stopped.state is not None and stopped.config is not None
    assert stopped.state.ready is api.EndpointStateReady.NOT_READY
    (entity,) = stopped.config.served_entities or []
    assert entity.state is not None and entity.state.deployment_state_message == "Stopped"
    with pytest.raises(BadRequest, match="The given endpoint is stopped"):
        endpoints.query("own", messages=[api.ChatMessage("hi", api.ChatMessageRole.USER)])
    sdk.api_client.do("POST", f"{path}:start")
    later(60)
    started = endpoints.wait_get_serving_endpoint_not_updating("own")
    assert started.config is not None and started.config.config_version == 2
    assert started.state is not None and started.state.ready is api.EndpointStateReady.READY


def pt_config(units: int) -> api.PtEndpointCoreConfig:
    model = api.PtServedModel(
        entity_name=UNITS, provisioned_model_units=units, burst_scaling_enabled=True
    )
    return api.PtEndpointCoreConfig(served_entities=[model])


def test_provisioned_throughput_endpoint_is_created_and_resized_at_once(
    endpoints: api.ServingEndpointsAPI, later: Advance
) -> None:
    waiter = endpoints.create_provisioned_throughput_endpoint("pt", pt_config(50))
    later(3600)
    created = waiter.result()
    assert created.config is not None
    (entity,) = created.config.served_entities or []
    assert (entity.provisioned_model_units, entity.burst_scaling_enabled) == (50, None)
    resized = endpoints.update_provisioned_throughput_endpoint_config_and_wait("pt", pt_config(100))
    assert resized.config is not None
    (entity,) = resized.config.served_entities or []
    assert entity.provisioned_model_units == 100


def test_resizing_shows_the_new_units_without_a_wait(
    endpoints: api.ServingEndpointsAPI, later: Advance
) -> None:
    endpoints.create_provisioned_throughput_endpoint("pt", pt_config(50))
    later(3600)
    endpoints.update_provisioned_throughput_endpoint_config("pt", pt_config(150))
    config = endpoints.get("pt").config
    assert config is not None and config.config_version == 2
    assert [e.provisioned_model_units for e in config.served_entities or []] == [150]


def test_provisioned_throughput_is_created_and_waited_for(token: str) -> None:
    """On the computer's clock, which the waiter polls against."""
    settings = Settings(engine="synthetic", speedup=6000)
    with serve(settings) as running:
        sdk = WorkspaceClient(host=running.url, token=token)
        created = sdk.serving_endpoints.create_provisioned_throughput_endpoint_and_wait(
            "pt", pt_config(50)
        )
    assert created.state is not None and created.state.ready is api.EndpointStateReady.READY


def test_model_sized_in_tokens_is_refused_by_the_pt_methods(
    endpoints: api.ServingEndpointsAPI,
) -> None:
    model = api.PtServedModel(entity_name=MODEL, provisioned_model_units=50)
    with pytest.raises(InvalidParameterValue, match="not eligible for Provisioned Throughput"):
        endpoints.create_provisioned_throughput_endpoint(
            "pt", api.PtEndpointCoreConfig(served_entities=[model])
        )


def test_external_model_shows_no_plaintext_and_is_not_served(
    endpoints: api.ServingEndpointsAPI, later: Advance
) -> None:
    secret = f"sk-{uuid.uuid4().hex}"
    model = api.ExternalModel(
        provider=api.ExternalModelProvider.OPENAI,
        name="gpt-4.1",
        task="llm/v1/chat",
        openai_config=api.OpenAiConfig(openai_api_key_plaintext=secret),
    )
    config = api.EndpointCoreConfigInput(
        name="ext", served_entities=[api.ServedEntityInput(external_model=model)]
    )
    waiter = endpoints.create("ext", config=config)
    later(60)
    shown = waiter.result()
    assert shown.config is not None
    (entity,) = shown.config.served_entities or []
    assert entity.name == "gpt-4-1"
    assert entity.external_model is not None and entity.external_model.openai_config is not None
    assert entity.external_model.openai_config.openai_api_key_plaintext is None
    assert (entity.external_model.openai_config.openai_api_key or "").startswith("{{secrets/")
    with pytest.raises(BadRequest, match='"external_model_provider":"openai"'):
        endpoints.query("ext", messages=[api.ChatMessage("hi", api.ChatMessageRole.USER)])
