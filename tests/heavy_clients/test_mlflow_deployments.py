"""`mlflow.deployments.get_deploy_client("databricks")`: every method, by both of its transports."""

import inspect
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from mlflow.deployments import get_deploy_client
from requests import HTTPError

Json = dict[str, Any]
Client = Any
Entity = Callable[..., Json]
Settle = Callable[[], None]

ENDPOINTS = "/api/2.0/serving-endpoints"
CHAT = "databricks-meta-llama-3-1-8b-instruct"
GTE = "databricks-gte-large-en"
QUESTION: Json = {"messages": [{"role": "user", "content": "What is the sea?"}], "temperature": 0}
TAGS = [{"key": "team", "value": "search"}]
LIMITS = {"rate_limits": [{"calls": 10, "key": "endpoint", "renewal_period": "minute"}]}


@pytest.fixture(params=["true", "false"], ids=["sdk", "requests"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Client:
    """The client on top of databricks-sdk, as it comes, and on top of requests."""
    monkeypatch.setenv("MLFLOW_ENABLE_DB_SDK", request.param)
    return get_deploy_client("databricks")


@pytest.fixture
def llama(client: Client, entity: Entity, settle: Settle) -> Json:
    """An endpoint that is up, as mlflow sees it."""
    client.create_endpoint(
        config={"name": "llama", "config": {"served_entities": [entity()]}, "tags": TAGS}
    )
    settle()
    endpoint: Json = client.get_endpoint("llama")
    assert endpoint["state"]["ready"] == "READY"
    return endpoint


def seen(raw: httpx.Client, name: str = "llama") -> Json:
    answer: Json = raw.get(f"{ENDPOINTS}/{name}").raise_for_status().json()
    return answer


def test_create_by_one_payload_answers_the_pending_endpoint(
    client: Client, raw: httpx.Client, entity: Entity
) -> None:
    created = client.create_endpoint(
        config={"name": "llama", "config": {"served_entities": [entity()]}, "tags": TAGS}
    )
    assert created == seen(raw)
    assert created.state == {
        "ready": "NOT_READY",
        "config_update": "IN_PROGRESS",
        "suspend": "NOT_SUSPENDED",
    }
    assert created.tags == TAGS
    pending = created.pending_config["served_entities"][0]
    assert {key: pending[key] for key in entity()} == entity()


def test_create_by_name_and_config_is_the_same_endpoint(
    client: Client, raw: httpx.Client, entity: Entity
) -> None:
    with pytest.warns(UserWarning, match="as separate parameters is deprecated"):
        created = client.create_endpoint("llama", {"served_entities": [entity()], "tags": TAGS})
    assert created == seen(raw)
    assert created.tags == TAGS
    pending = created.pending_config["served_entities"][0]
    assert {key: pending[key] for key in entity()} == entity()


def test_create_with_the_name_beside_the_payload(
    client: Client, raw: httpx.Client, entity: Entity
) -> None:
    with pytest.warns(UserWarning, match="Passing 'name' as a parameter is deprecated"):
        created = client.create_endpoint("llama", {"config": {"served_entities": [entity()]}})
    assert created == seen(raw)


def test_get_is_what_is_on_the_wire(client: Client, llama: Json, raw: httpx.Client) -> None:
    assert llama == seen(raw)
    assert client.get_endpoint(CHAT) == seen(raw, CHAT)


def test_list_is_what_is_on_the_wire(client: Client, llama: Json, raw: httpx.Client) -> None:
    endpoints = client.list_endpoints()
    assert endpoints == raw.get(ENDPOINTS).json()["endpoints"]
    assert [e["name"] for e in endpoints if "id" in e] == ["llama"]
    assert CHAT in [e["name"] for e in endpoints]


def test_update_config_replaces_the_entities_once_it_is_through(
    client: Client, llama: Json, raw: httpx.Client, entity: Entity, settle: Settle
) -> None:
    wanted = entity(max_provisioned_throughput=6320)
    updating = client.update_endpoint_config("llama", {"served_entities": [wanted]})
    assert updating == seen(raw)
    assert updating.state["config_update"] == "IN_PROGRESS"
    assert updating.config == llama["config"]
    settle()
    now = client.get_endpoint("llama").config
    assert now["config_version"] == llama["config"]["config_version"] + 1
    assert {key: now["served_entities"][0][key] for key in wanted} == wanted


def test_the_deprecated_update_is_an_update_of_the_config(
    client: Client, llama: Json, raw: httpx.Client, entity: Entity
) -> None:
    wanted = entity(max_provisioned_throughput=6320)
    with (
        pytest.warns(FutureWarning, match="update_endpoint.* is deprecated"),
        pytest.warns(UserWarning, match="The `update_endpoint` method is deprecated"),
    ):
        updating = client.update_endpoint("llama", {"served_entities": [wanted]})
    assert updating == seen(raw)
    pending = updating.pending_config["served_entities"][0]
    assert {key: pending[key] for key in wanted} == wanted


def test_the_deprecated_update_with_rate_limits_alone_sets_them(
    client: Client, llama: Json, raw: httpx.Client
) -> None:
    with (
        pytest.warns(FutureWarning, match="update_endpoint.* is deprecated"),
        pytest.warns(UserWarning, match="The `update_endpoint` method is deprecated"),
    ):
        assert client.update_endpoint("llama", LIMITS) == LIMITS


def test_update_rate_limits_answers_what_was_set(client: Client, llama: Json) -> None:
    assert client.update_endpoint_rate_limits("llama", LIMITS) == LIMITS


def test_update_ai_gateway_answers_what_was_set_and_the_endpoint_shows_it(
    client: Client, llama: Json, raw: httpx.Client
) -> None:
    gateway = {
        "usage_tracking_config": {"enabled": True},
        "rate_limits": [{"calls": 5, "key": "user", "renewal_period": "minute"}],
    }
    assert client.update_endpoint_ai_gateway("llama", gateway) == gateway
    assert seen(raw)["ai_gateway"] == gateway


def test_update_tags_answers_the_tags_as_they_are_now(
    client: Client, llama: Json, raw: httpx.Client
) -> None:
    added = [{"key": "project", "value": "test"}]
    answer = client.update_endpoint_tags("llama", {"add_tags": added, "delete_tags": ["team"]})
    assert answer == {"tags": added}
    assert seen(raw)["tags"] == added


def test_predict_answers_a_chat_of_the_endpoint(client: Client, llama: Json) -> None:
    answer = client.predict(endpoint="llama", inputs={**QUESTION, "max_tokens": 5})
    assert answer == {
        "id": answer.id,
        "object": "chat.completion",
        "created": answer.created,
        "model": "foundation-model",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "You asked about sea,"},
                "finish_reason": "length",
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": 8, "completion_tokens": 5, "total_tokens": 13},
    }


def test_predict_stream_is_the_answer_of_predict_in_pieces(client: Client) -> None:
    whole = client.predict(endpoint=CHAT, inputs=QUESTION)
    events = list(client.predict_stream(endpoint=CHAT, inputs=QUESTION))
    deltas = [event["choices"][0]["delta"] for event in events]
    assert "".join(delta["content"] for delta in deltas) == whole.choices[0]["message"]["content"]
    assert [delta.get("role") for delta in deltas] == ["assistant", *[None] * (len(deltas) - 1)]
    assert [e["choices"][0]["finish_reason"] for e in events[-2:]] == [None, "stop"]
    assert {e["object"] for e in events} == {"chat.completion.chunk"}
    assert len({e["id"] for e in events}) == 1
    assert events[-1]["usage"] == whole.usage


def test_predict_answers_embeddings(client: Client) -> None:
    answer = client.predict(endpoint=GTE, inputs={"input": ["a b", "c"]})
    assert [row["index"] for row in answer.data] == [0, 1]
    assert [len(row["embedding"]) for row in answer.data] == [1024, 1024]
    assert answer.usage == {"prompt_tokens": 7, "total_tokens": 7}


def test_delete_takes_the_endpoint_away(client: Client, llama: Json, raw: httpx.Client) -> None:
    assert client.delete_endpoint("llama") == {}
    assert raw.get(f"{ENDPOINTS}/llama").status_code == 404


NO_ENDPOINT = (404, "RESOURCE_DOES_NOT_EXIST", "Endpoint with name 'nope' does not exist.")
NOTHING_TO_INVOKE = (
    404,
    "ENDPOINT_NOT_FOUND",
    "The given endpoint does not exist, please retry after checking the specified model and "
    "version deployment exists.",
)
UNKNOWN_FIELD = (400, "BAD_REQUEST", 'Bad request: json: unknown field "seed"\n')
BAD_NAME = (
    400,
    "INVALID_PARAMETER_VALUE",
    "Endpoint name must be maximum 63 characters, and alphanumeric with hyphens and underscores "
    "allowed in between.",
)
SEEDED: Json = {**QUESTION, "seed": 1}


@pytest.mark.parametrize(
    ("call", "failure"),
    [
        (lambda client: client.get_endpoint("nope"), NO_ENDPOINT),
        (lambda client: client.delete_endpoint("nope"), NO_ENDPOINT),
        (lambda client: client.update_endpoint_tags("nope", {"add_tags": TAGS}), NO_ENDPOINT),
        (lambda client: client.update_endpoint_rate_limits("nope", LIMITS), NO_ENDPOINT),
        (lambda client: client.update_endpoint_ai_gateway("nope", {}), NO_ENDPOINT),
        (lambda client: client.create_endpoint(config={"name": "-x-", "config": {}}), BAD_NAME),
        (lambda client: client.predict(endpoint="nope", inputs=QUESTION), NOTHING_TO_INVOKE),
        (
            lambda client: list(client.predict_stream(endpoint="nope", inputs=QUESTION)),
            NOTHING_TO_INVOKE,
        ),
        (lambda client: client.predict(endpoint=CHAT, inputs=SEEDED), UNKNOWN_FIELD),
        (
            lambda client: list(client.predict_stream(endpoint=CHAT, inputs=SEEDED)),
            UNKNOWN_FIELD,
        ),
    ],
    ids=[
        "get",
        "delete",
        "tags",
        "rate_limits",
        "ai_gateway",
        "create",
        "predict",
        "stream",
        "predict-body",
        "stream-body",
    ],
)
def test_a_failure_keeps_its_status_code_and_message(
    client: Client, call: Callable[[Client], object], failure: tuple[int, str, str]
) -> None:
    with pytest.raises(HTTPError) as raised:
        call(client)
    body = raised.value.response.json()
    assert (raised.value.response.status_code, body["error_code"], body["message"]) == failure


def test_a_second_update_meets_a_conflict(client: Client, llama: Json, entity: Entity) -> None:
    config = {"served_entities": [entity(max_provisioned_throughput=6320)]}
    client.update_endpoint_config("llama", config)
    with pytest.raises(HTTPError) as raised:
        client.update_endpoint_config("llama", config)
    assert raised.value.response.status_code == 409
    body = raised.value.response.json()
    assert body["error_code"] == "RESOURCE_CONFLICT"
    assert body["message"] == "Endpoint served entities are currently being updated"


def test_a_name_that_is_taken_is_refused(client: Client, llama: Json, entity: Entity) -> None:
    """409 on the wire; the client of the SDK rebuilds the status from the code, and says 400."""
    config = {"name": "llama", "config": {"served_entities": [entity()]}}
    with pytest.raises(HTTPError) as raised:
        client.create_endpoint(config=config)
    assert raised.value.response.status_code in (400, 409)
    assert raised.value.response.json()["error_code"] == "RESOURCE_ALREADY_EXISTS"


def test_every_method_of_the_client_has_a_test(client: Client) -> None:
    """What is new in mlflow is to be covered here. `*_deployment` raise NotImplementedError."""
    methods = {name for name, _ in inspect.getmembers(type(client), inspect.isfunction)}
    public = {name for name in methods if not name.startswith("_")}
    assert {name for name in public if "deployment" not in name} == {
        "create_endpoint",
        "delete_endpoint",
        "explain",  # the base class's; not implemented for Databricks
        "get_endpoint",
        "list_endpoints",
        "predict",
        "predict_stream",
        "update_endpoint",
        "update_endpoint_ai_gateway",
        "update_endpoint_config",
        "update_endpoint_rate_limits",
        "update_endpoint_tags",
    }
