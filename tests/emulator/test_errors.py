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
AssertFails = Callable[[httpx.Response, int, str, str], None]

B = "/api/2.0/serving-endpoints"
FAULTS = "/_emulator/faults"
MODEL = "ml.llm-catalog.foundation-model"
LLAMA = {
    "entity_name": MODEL,
    "entity_version": "3",
    "min_provisioned_throughput": 1580,
    "max_provisioned_throughput": 1580,
}

BAD_NAME = (
    "Endpoint name must be maximum 63 characters, and alphanumeric with hyphens and underscores "
    "allowed in between."
)
BAD_JSON = "Invalid JSON given in the body of the request - failed to parse given JSON"
NO_MODEL = "Routine or Model 'a.b.c' does not exist."
NO_VERSION = f"Model Version (name='{MODEL}', version=9) does not exist."
NO_ENDPOINT = "Endpoint with name 'nobody' does not exist."
INVALID = "INVALID_PARAMETER_VALUE"
MALFORMED = "MALFORMED_REQUEST"
MISSING = "RESOURCE_DOES_NOT_EXIST"


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
def test_body_that_is_no_request_is_refused(
    assert_fails: AssertFails, workspace: httpx.Client, case: str
) -> None:
    body, error_code, message = BODIES[case]
    assert_fails(workspace.post(B, content=body), 400, error_code, message)


def test_hundred_levels_of_json_are_read(workspace: httpx.Client) -> None:
    nested: object = 1
    for _ in range(99):
        nested = [nested]
    assert workspace.post(B, json={"name": "a", "unknown": nested}).status_code == 200


@pytest.mark.parametrize(
    "name",
    ["", "a" * 64, "-a", "a-", "_a", "a.b", "a/b", "a b", "a\n", "é", "\x00"],
)
def test_bad_name_is_refused(assert_fails: AssertFails, workspace: httpx.Client, name: str) -> None:
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
def test_bad_create_is_refused(
    assert_fails: AssertFails, workspace: httpx.Client, case: str
) -> None:
    body, message = CREATES[case]
    assert_fails(workspace.post(B, json=body), 400, INVALID, message)


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
        400,
        "INVALID_PARAMETER_VALUE",
        "Invalid value for field 'id': another rule has it, and each needs its own "
        '(given: "there")',
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
def test_request_is_refused(assert_fails: AssertFails, filled: httpx.Client, case: str) -> None:
    method, path, body, status, error_code, message = REQUESTS[case]
    answer = filled.request(method, path, content=body)
    assert_fails(answer, status, error_code, message)


ROUTES_OF_ONE = {
    "update": ("PUT", "config", GOOD_CONFIG),
    "stop": ("POST", "config:stop", ""),
    "start": ("POST", "config:start", ""),
    "tag": ("PATCH", "tags", "{}"),
    "limit": ("PUT", "rate-limits", "{}"),
    "guard": ("PUT", "ai-gateway", "{}"),
    "notify": ("PATCH", "notifications", "{}"),
    "trace": ("PATCH", "telemetry-config", "{}"),
}
"""Routes that change an endpoint: method, path below it, a body that would do."""


@pytest.mark.parametrize("case", ROUTES_OF_ONE)
def test_no_route_changes_an_endpoint_that_is_not_there(
    assert_fails: AssertFails, filled: httpx.Client, case: str
) -> None:
    method, path, body = ROUTES_OF_ONE[case]
    answer = filled.request(method, f"{B}/nobody/{path}", content=body)
    assert_fails(answer, 404, MISSING, NO_ENDPOINT)


@pytest.mark.parametrize("case", ROUTES_OF_ONE)
def test_no_route_changes_a_pay_per_token_endpoint(
    assert_fails: AssertFails, filled: httpx.Client, case: str
) -> None:
    method, path, body = ROUTES_OF_ONE[case]
    answer = filled.request(method, f"{B}/databricks-gpt-5/{path}", content=body)
    assert_fails(answer, 403, "PERMISSION_DENIED", NO_PERMISSION)


@pytest.mark.parametrize("case", [c for c, (*_, body) in ROUTES_OF_ONE.items() if body])
def test_every_route_that_takes_a_body_wants_json(
    assert_fails: AssertFails, filled: httpx.Client, case: str
) -> None:
    method, path, _ = ROUTES_OF_ONE[case]
    answer = filled.request(method, f"{B}/up/{path}", content="[")
    assert_fails(answer, 400, MALFORMED, BAD_JSON)


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
