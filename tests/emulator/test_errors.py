"""Every way a control-plane request can fail: status, error_code, message, shape."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from servemu.app import create_app
from servemu.clock import PausedClock
from servemu.settings import Settings
from servemu.testing import Emulator, serve
from servemu.wiring import build_world

Json = dict[str, Any]
Connect = Callable[..., httpx.Client]

B = "/api/2.0/serving-endpoints"
FAULTS = "/_emulator/faults"
MODEL = "ml.llm-catalog.foundation-model"
LLAMA = {
    "entity_name": MODEL,
    "entity_version": "3",
    "min_provisioned_throughput": 1580,
    "max_provisioned_throughput": 1580,
}
GTE = {
    "entity_name": "system.ai.gte_large_en_v1_5",
    "entity_version": "1",
    "min_provisioned_throughput": 980,
    "max_provisioned_throughput": 980,
}
MAVERICK = {"entity_name": "system.ai.llama-4-maverick", "entity_version": "1"}

BAD_NAME = (
    "Endpoint name must be maximum 63 characters, and alphanumeric with hyphens and underscores "
    "allowed in between."
)
BAD_JSON = "Invalid JSON given in the body of the request - failed to parse given JSON"
NO_MODEL = "Routine or Model 'a.b.c' does not exist."
NO_VERSION = f"Model Version (name='{MODEL}', version=9) does not exist."
NO_ENDPOINT = "Endpoint with name 'nobody' does not exist."
NO_ENTITY = "At least one served entity must be specified."
INVALID = "INVALID_PARAMETER_VALUE"
MALFORMED = "MALFORMED_REQUEST"
MISSING = "RESOURCE_DOES_NOT_EXIST"


def entity_field(field: str, problem: str) -> str:
    return f"Invalid value for field 'config.served_entities[0].{field}': {problem}"


def size(problem: str) -> str:
    return problem.replace("…", f"for {MODEL}")


def assert_fails(answer: httpx.Response, status: int, error_code: str, message: str) -> None:
    """The whole body, and that its request id is the header's (facts/control_plane §4)."""
    details = {
        "@type": "type.googleapis.com/google.rpc.RequestInfo",
        "request_id": answer.headers["x-request-id"],
        "serving_data": "",
    }
    body = {"error_code": error_code, "message": message, "details": [details]}
    assert (answer.status_code, answer.json()) == (status, body)
    assert answer.headers["content-type"] == "application/json"


@pytest.fixture(scope="module")
def filled(emulator: Emulator, connect: Connect) -> Iterator[httpx.Client]:
    """A workspace with an endpoint that is up (`up`) and one that is coming up (`busy`)."""
    with connect(emulator.url) as client:
        client.post(B, json={"name": "up", "config": {"served_entities": [LLAMA]}})
        client.post("/_emulator/clock/advance", json={"seconds": 60})
        client.post(B, json={"name": "busy", "config": {"served_entities": [LLAMA]}})
        client.post(FAULTS, json={"id": "there", "preset": "no-gpu-capacity"})
        yield client


BODIES: dict[str, tuple[bytes, str, str]] = {
    "no body": (b"", INVALID, "Missing required field: name"),
    "blank": (b" \n", INVALID, "Missing required field: name"),
    "no JSON": (b"{", MALFORMED, BAD_JSON),
    "array": (b"[]", MALFORMED, BAD_JSON),
    "string": (b'"a"', MALFORMED, BAD_JSON),
    "null": (b"null", MALFORMED, BAD_JSON),
    "invalid UTF-8": (b'{"name":"\xff"}', MALFORMED, BAD_JSON),
    "half a surrogate pair": (b'{"name":"a","description":"\\ud800"}', MALFORMED, BAD_JSON),
    "half a pair as key": (b'{"name":"a","ai_gateway":{"\\ud800":1}}', MALFORMED, BAD_JSON),
    "NaN": (b'{"name":"a","telemetry_config":{"a":NaN}}', MALFORMED, BAD_JSON),
    "beyond a double": (b'{"name":"a","telemetry_config":{"a":1e999}}', MALFORMED, BAD_JSON),
    "5000 digits": (b'{"name":"a","x":' + b"9" * 5000 + b"}", MALFORMED, BAD_JSON),
    "deeper than Python": (b"[" * 100_000, MALFORMED, BAD_JSON),
    "deep": (b'{"name":"a","x":' + b"[" * 100 + b"]" * 100 + b"}", MALFORMED, BAD_JSON),
}


@pytest.mark.parametrize("case", BODIES)
def test_body_that_is_no_request_is_refused(workspace: httpx.Client, case: str) -> None:
    body, error_code, message = BODIES[case]
    assert_fails(workspace.post(B, content=body), 400, error_code, message)


def test_hundred_levels_of_json_are_accepted_and_echoed(workspace: httpx.Client) -> None:
    nested: object = 1
    for _ in range(98):
        nested = [nested]
    created = workspace.post(B, json={"name": "a", "telemetry_config": {"a": nested}})
    assert created.status_code == 200
    assert workspace.get(f"{B}/a").json()["telemetry_config"] == {"a": nested}


@pytest.mark.parametrize(
    "name",
    ["", "a" * 64, "-a", "a-", "_a", "a.b", "a/b", "a b", "a\n", "é", "\x00"],
)
def test_bad_name_is_refused(workspace: httpx.Client, name: str) -> None:
    assert_fails(workspace.post(B, json={"name": name}), 400, INVALID, BAD_NAME)


@pytest.mark.parametrize("name", ["a", "a" * 63, "9", "a_b-c", "A-1", "pt"])
def test_good_name_is_accepted(workspace: httpx.Client, name: str) -> None:
    assert workspace.post(B, json={"name": name}).status_code == 200


CREATES: dict[str, tuple[Json, str]] = {
    "name is a number": (
        {"name": 5},
        "Invalid value for field 'name': Input should be a valid string (given: 5)",
    ),
    "name is null": ({"name": None}, "Missing required field: name"),
    "no name": ({"config": {"served_entities": [LLAMA]}}, "Missing required field: name"),
    "reserved prefix": (
        {"name": "databricks-x"},
        "Endpoint name 'databricks-x' must not start with the reserved prefix 'databricks-'.",
    ),
    "config is a list": (
        {"name": "a", "config": []},
        "Invalid value for field 'config': Input should be an object (given: [])",
    ),
    "tags are an object": (
        {"name": "a", "tags": {"key": "a"}},
        """Invalid value for field 'tags': Input should be an array (given: {"key": "a"})""",
    ),
    "gateway is a list": (
        {"name": "a", "ai_gateway": []},
        "Invalid value for field 'ai_gateway': Input should be an object (given: [])",
    ),
    "tags without key": (
        {"name": "a", "tags": [{"value": "b"}]},
        "Missing required field: tags[0].key",
    ),
    "long description": (
        {"name": "a", "description": "d" * 1001},
        "Invalid value for field 'description': String should have at most 1000 characters "
        f'(given: "{"d" * 199})',
    ),
    "route_optimized is a word": (
        {"name": "a", "route_optimized": "yes"},
        "Invalid value for field 'route_optimized': Input should be a valid boolean "
        '(given: "yes")',
    ),
    "gateway without config": (
        {"name": "a", "ai_gateway": {"usage_tracking_config": {"enabled": True}}},
        "Cannot specify ai_gateway when creating endpoints without a config.",
    ),
    "rate limits without config": (
        {"name": "a", "rate_limits": [{"calls": 1, "renewal_period": "minute"}]},
        "Cannot specify rate_limits when creating endpoints without a config.",
    ),
}


@pytest.mark.parametrize("case", CREATES)
def test_bad_create_is_refused(workspace: httpx.Client, case: str) -> None:
    body, message = CREATES[case]
    assert_fails(workspace.post(B, json=body), 400, INVALID, message)


INT = "Input should be a valid integer"
ENTITIES: dict[str, tuple[Json, int, str, str]] = {
    "no name": (
        {"entity_name": None},
        400,
        INVALID,
        "Missing required field: served_entities.entity_name",
    ),
    "no version": (
        {"entity_version": None},
        400,
        INVALID,
        f"Missing required field: served_entities.entity_version of {MODEL}",
    ),
    "unknown model": ({"entity_name": "a.b.c"}, 404, MISSING, NO_MODEL),
    "unknown version": ({"entity_version": 9}, 404, MISSING, NO_VERSION),
    "version is a boolean": (
        {"entity_version": True},
        400,
        INVALID,
        entity_field("entity_version", "Input should be a valid string (given: true)"),
    ),
    "external model": (
        {"external_model": {"provider": "openai"}},
        400,
        INVALID,
        "External models are not served by this version of the emulator.",
    ),
    "entity name with a slash": (
        {"name": "a/b"},
        400,
        INVALID,
        "Served entity name must be alphanumeric with hyphens and underscores allowed, got 'a/b'.",
    ),
    "negative": (
        {"min_provisioned_throughput": -1},
        400,
        INVALID,
        size("min_provisioned_throughput must not be negative …, got -1."),
    ),
    "zero": (
        {"min_provisioned_throughput": 0, "max_provisioned_throughput": 0},
        400,
        INVALID,
        size("max_provisioned_throughput must be greater than 0 …, got 0."),
    ),
    "minimum above maximum": (
        {"min_provisioned_throughput": 3160},
        400,
        INVALID,
        size(
            "min_provisioned_throughput (3160) must not be greater than "
            "max_provisioned_throughput (1580) …."
        ),
    ),
    "no maximum": (
        {"max_provisioned_throughput": None},
        400,
        INVALID,
        size("max_provisioned_throughput is required …."),
    ),
    "beyond int64": (
        {"max_provisioned_throughput": 2**63},
        400,
        INVALID,
        entity_field(
            "max_provisioned_throughput",
            f"Input should be less than or equal to {2**63 - 1} (given: {2**63})",
        ),
    ),
    "a fraction": (
        {"max_provisioned_throughput": 1.5},
        400,
        INVALID,
        entity_field(
            "max_provisioned_throughput", f"{INT}, got a number with a fractional part (given: 1.5)"
        ),
    ),
    "a word": (
        {"max_provisioned_throughput": "much"},
        400,
        INVALID,
        entity_field(
            "max_provisioned_throughput",
            f'{INT}, unable to parse string as an integer (given: "much")',
        ),
    ),
    "a boolean": (
        {"max_provisioned_throughput": True},
        400,
        INVALID,
        entity_field("max_provisioned_throughput", f"{INT} (given: true)"),
    ),
    "negative units": (
        {"provisioned_model_units": -50},
        400,
        INVALID,
        entity_field(
            "provisioned_model_units", "Input should be greater than or equal to 0 (given: -50)"
        ),
    ),
    "scale to zero is a word": (
        {"scale_to_zero_enabled": "yes"},
        400,
        INVALID,
        entity_field("scale_to_zero_enabled", 'Input should be a valid boolean (given: "yes")'),
    ),
    "not eligible": (
        {"entity_name": "system.ai.gpt-oss-120b", "entity_version": "1"},
        400,
        INVALID,
        "Served entity system.ai.gpt-oss-120b is not eligible for Provisioned Throughput.",
    ),
    "base Llama": (
        {"entity_name": "system.ai.meta_llama_3_8b", "entity_version": "1"},
        400,
        INVALID,
        "Base versions of Meta Llama models are not supported for deployment from system.ai.",
    ),
    "base Llama without throughput": (
        {
            "entity_name": "system.ai.meta_llama_3_8b",
            "entity_version": "1",
            "min_provisioned_throughput": None,
            "max_provisioned_throughput": None,
        },
        400,
        INVALID,
        "Base versions of Meta Llama models are not supported for deployment from system.ai.",
    ),
}


@pytest.mark.parametrize("case", ENTITIES)
def test_bad_served_entity_is_refused(workspace: httpx.Client, case: str) -> None:
    fields, status, error_code, message = ENTITIES[case]
    given = {key: value for key, value in (LLAMA | fields).items() if value is not None}
    answer = workspace.post(B, json={"name": "a", "config": {"served_entities": [given]}})
    assert_fails(answer, status, error_code, message)
    assert workspace.get(f"{B}/a").status_code == 404


def split(*shares: tuple[str | None, int]) -> Json:
    routes = [{"served_entity_name": name, "traffic_percentage": share} for name, share in shares]
    return {"routes": routes}


A, C = LLAMA | {"name": "a"}, LLAMA | {"name": "c"}
CONFIGS: dict[str, tuple[Json, str]] = {
    "nothing": ({}, NO_ENTITY),
    "no entities": ({"served_entities": []}, NO_ENTITY),
    "16 entities": (
        {"served_entities": [LLAMA | {"name": f"e{n}"} for n in range(16)]},
        "At most 15 served entities are allowed, got 16.",
    ),
    "two alike": (
        {"served_entities": [LLAMA, LLAMA], "traffic_config": split(("a", 100))},
        "Served entity names must be unique, 'foundation-model-3' is given twice.",
    ),
    "two tasks": (
        {
            "served_entities": [A, GTE | {"name": "c"}],
            "traffic_config": split(("a", 50), ("c", 50)),
        },
        "All served entities must have the same task, got llm/v1/chat, llm/v1/embeddings.",
    ),
    "Maverick is alone": (
        {"served_entities": [A, MAVERICK], "traffic_config": split(("a", 100))},
        "Served entity system.ai.llama-4-maverick must be the only served entity of its "
        "endpoint, got 2.",
    ),
    "two without traffic": (
        {"served_entities": [A, C]},
        "traffic_config must be specified for more than one served entity.",
    ),
    "99 percent": (
        {"served_entities": [A, C], "traffic_config": split(("a", 50), ("c", 49))},
        "The traffic percentages must sum to 100, got 99.",
    ),
    "101 percent": (
        {"served_entities": [A], "traffic_config": split(("a", 101))},
        "Invalid value for field 'config.traffic_config.routes[0].traffic_percentage': Input "
        "should be less than or equal to 100 (given: 101)",
    ),
    "traffic to nobody": (
        {"served_entities": [A, C], "traffic_config": split(("a", 50), ("b", 50))},
        "Traffic route names unknown served entity 'b'. Served entities: a, c.",
    ),
    "route without a name": (
        {"served_entities": [A], "traffic_config": split((None, 100))},
        "Missing required field: traffic_config.routes.served_entity_name",
    ),
    "route without a share": (
        {"served_entities": [A], "traffic_config": {"routes": [{"served_entity_name": "a"}]}},
        "Missing required field: config.traffic_config.routes[0].traffic_percentage",
    ),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_bad_config_is_refused_at_create(workspace: httpx.Client, case: str) -> None:
    config, message = CONFIGS[case]
    answer = workspace.post(B, json={"name": "a", "config": config})
    assert_fails(answer, 400, INVALID, message)


@pytest.mark.parametrize("case", CONFIGS)
def test_bad_config_is_refused_at_update(filled: httpx.Client, case: str) -> None:
    config, message = CONFIGS[case]
    answer = filled.put(f"{B}/up/config", json=config)
    assert_fails(answer, 400, INVALID, message.replace("'config.", "'").replace(" config.", " "))


GOOD_CONFIG = json.dumps({"served_entities": [LLAMA]})
GOOD_CREATE = json.dumps({"name": "up", "config": {"served_entities": [LLAMA]}})
NO_PERMISSION = "User does not have permission 'Manage' on Endpoint databricks-gpt-5"
REQUESTS: dict[str, tuple[str, str, str, int, str, str]] = {
    "create a second": (
        "POST",
        B,
        GOOD_CREATE,
        409,
        "RESOURCE_ALREADY_EXISTS",
        "Serving endpoint with name up already exists",
    ),
    "get": ("GET", f"{B}/nobody", "", 404, MISSING, NO_ENDPOINT),
    "delete": ("DELETE", f"{B}/nobody", "", 404, MISSING, NO_ENDPOINT),
    "update": ("PUT", f"{B}/nobody/config", GOOD_CONFIG, 404, MISSING, NO_ENDPOINT),
    "tag": ("PATCH", f"{B}/nobody/tags", "{}", 404, MISSING, NO_ENDPOINT),
    "update with a bad body": ("PUT", f"{B}/up/config", "{", 400, MALFORMED, BAD_JSON),
    "tag with a bad body": ("PATCH", f"{B}/up/tags", "[]", 400, MALFORMED, BAD_JSON),
    "tag without key": (
        "PATCH",
        f"{B}/up/tags",
        '{"add_tags":[{}]}',
        400,
        INVALID,
        "Missing required field: add_tags[0].key",
    ),
    "update during an update": (
        "PUT",
        f"{B}/busy/config",
        GOOD_CONFIG,
        409,
        "RESOURCE_CONFLICT",
        "Endpoint served entities are currently being updated",
    ),
    "delete pay-per-token": (
        "DELETE",
        f"{B}/databricks-gpt-5",
        "",
        403,
        "PERMISSION_DENIED",
        NO_PERMISSION,
    ),
    "update pay-per-token": (
        "PUT",
        f"{B}/databricks-gpt-5/config",
        GOOD_CONFIG,
        403,
        "PERMISSION_DENIED",
        NO_PERMISSION,
    ),
    "tag pay-per-token": (
        "PATCH",
        f"{B}/databricks-gpt-5/tags",
        "{}",
        403,
        "PERMISSION_DENIED",
        NO_PERMISSION,
    ),
    "optimization info of no model": (
        "GET",
        f"{B}/get-model-optimization-info/a.b.c/1",
        "",
        404,
        MISSING,
        NO_MODEL,
    ),
    "optimization info of no version": (
        "GET",
        f"{B}/get-model-optimization-info/{MODEL}/9",
        "",
        404,
        MISSING,
        NO_VERSION,
    ),
    "get no fault": (
        "GET",
        f"{FAULTS}/none",
        "",
        404,
        MISSING,
        "Fault rule with id 'none' does not exist.",
    ),
    "remove no fault": (
        "DELETE",
        f"{FAULTS}/none",
        "",
        404,
        MISSING,
        "Fault rule with id 'none' does not exist.",
    ),
    "add a fault twice": (
        "POST",
        FAULTS,
        '{"id":"there","preset":"no-gpu-capacity"}',
        409,
        "RESOURCE_ALREADY_EXISTS",
        "Fault rule with id 'there' already exists.",
    ),
    "advance by nothing": (
        "POST",
        "/_emulator/clock/advance",
        "{}",
        400,
        INVALID,
        "Missing required field: seconds",
    ),
    "advance backwards": (
        "POST",
        "/_emulator/clock/advance",
        '{"seconds":-1}',
        400,
        INVALID,
        "Invalid value for field 'seconds': Input should be greater than 0 (given: -1)",
    ),
    "advance for ever": (
        "POST",
        "/_emulator/clock/advance",
        '{"seconds":1e300}',
        400,
        INVALID,
        "Invalid value for field 'seconds': Input should be less than or equal to 3153600000 "
        "(given: 1e+300)",
    ),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_request_is_refused(filled: httpx.Client, case: str) -> None:
    method, path, body, status, error_code, message = REQUESTS[case]
    answer = filled.request(method, path, content=body)
    assert_fails(answer, status, error_code, message)


UNKNOWN: dict[str, tuple[str, str, str]] = {
    "path": ("GET", "/api/2.0/clusters/list", "GET /clusters/list"),
    "path of 2.1": ("GET", "/api/2.1/unity-catalog/domains", "GET /unity-catalog/domains"),
    "path without API": ("GET", "/favicon.ico", "GET /favicon.ico"),
    "method on all": ("PUT", B, "PUT /serving-endpoints"),
    "method on one": ("PATCH", f"{B}/up", "PATCH /serving-endpoints/up"),
    "name with a slash": ("GET", f"{B}/a%2Fb", "GET /serving-endpoints/a/b"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_unknown_path_or_method_gets_the_real_404_and_a_hint(
    workspace: httpx.Client, case: str
) -> None:
    method, path, shown = UNKNOWN[case]
    answer = workspace.request(method, path)
    body = {"error_code": "ENDPOINT_NOT_FOUND", "message": f"No API found for '{shown}'"}
    assert (answer.status_code, answer.json()) == (404, body)
    assert answer.headers["x-emulator-why"].startswith("servemu does not emulate this path")


def test_hint_names_the_methods_that_a_known_path_has(workspace: httpx.Client) -> None:
    why = workspace.put(B).headers["x-emulator-why"]
    assert f"Near: GET|POST {B};" in why


NO_CREDENTIAL = {
    "error_code": 401,
    "message": "Credential was not sent or was of an unsupported type for this API.",
}


@pytest.mark.parametrize("given", [None, "", "Bearer", "Digest x", "Basic !", "Basic dXNlcjpwYXNz"])
@pytest.mark.parametrize("path", [B, f"{B}/nobody", "/api/2.0/preview/scim/v2/Me", "/no/where"])
def test_no_credential_is_401_with_a_number(
    workspace: httpx.Client, given: str | None, path: str
) -> None:
    del workspace.headers["Authorization"]
    answer = workspace.get(path, headers={} if given is None else {"Authorization": given})
    assert (answer.status_code, answer.json()) == (401, NO_CREDENTIAL)
    assert answer.headers["www-authenticate"] == 'Bearer realm="DatabricksRealm"'


def test_strict_auth_refuses_other_tokens_with_403_and_a_number(connect: Connect) -> None:
    settings = Settings(engine="synthetic", auth="strict", tokens=("dapi-good",))
    with serve(settings, PausedClock()) as strict:
        with connect(strict.url, "dapi-good") as client:
            assert client.get(B).status_code == 200
        with connect(strict.url, "dapi-bad") as client:
            answer = client.get(B)
    message = f"Invalid access token. [ReqId: {answer.headers['x-request-id']}]"
    assert (answer.status_code, answer.json()) == (403, {"error_code": 403, "message": message})
    assert answer.headers["x-databricks-reason-phrase"] == "Invalid access token."


@pytest.mark.anyio
async def test_what_nobody_foresaw_is_the_real_500_with_all_headers() -> None:
    world = build_world(Settings(engine="synthetic"), PausedClock())
    world.db.close()
    transport = httpx.ASGITransport(create_app(world))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        answer = await client.get(f"{B}/a", headers={"Authorization": "Bearer t"})
    body = {"error_code": "INTERNAL_ERROR", "message": "Internal server error."}
    assert (answer.status_code, answer.json()) == (500, body)
    assert {"x-request-id", "x-databricks-org-id"} <= answer.headers.keys()
