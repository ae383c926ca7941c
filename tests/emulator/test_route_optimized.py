"""Route-optimised endpoints: their own URL, their own tokens (facts/data_plane §1.2)."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from servemu.testing import Emulator

Json = dict[str, Any]
Connect = Callable[..., httpx.Client]
Create = Callable[..., Json]
Get = Callable[[str], Json]

B = "/api/2.0/serving-endpoints"
P = "/api/2.0/permissions/serving-endpoints"
TOKEN = "/oidc/v1/token"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ROBOT = "6f9619ff-8b86-4d01-b42d-00c04fc964ff"
QUESTION = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
NOT_PROVISIONED = {"min_provisioned_throughput": None, "max_provisioned_throughput": None}


@pytest.fixture
def make(create: Create, entity: Create, advance: Callable[[float], None], get: Get) -> Get:
    """Makes a route-optimised endpoint and brings it up."""

    def make(name: str) -> Json:
        create(name, entity(**NOT_PROVISIONED), route_optimized=True)
        advance(600)
        return get(name)

    return make


@pytest.fixture
def robot(workspace: httpx.Client) -> tuple[str, str]:
    """Client id and secret of a service principal of the test's workspace."""
    token = workspace.headers["Authorization"].removeprefix("Bearer ")
    return f"{token}.{ROBOT}", "secret"


@pytest.fixture
def anonymous(emulator: Emulator) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=emulator.url, trust_env=False, timeout=20) as client:
        yield client


@pytest.fixture
def exchange(anonymous: httpx.Client, robot: tuple[str, str]) -> Callable[[Json], str]:
    """The robot's token for an endpoint, had as databricks-sdk has it: in two steps."""

    def exchange(endpoint: Json) -> str:
        form = {"grant_type": "client_credentials", "scope": "all-apis"}
        first = anonymous.post(TOKEN, data=form, auth=robot).json()["access_token"]
        info = endpoint["data_plane_info"]["query_info"]
        form = {
            "grant_type": JWT_BEARER,
            "assertion": first,
            "authorization_details": info["authorization_details"],
        }
        answer = anonymous.post(TOKEN, data=form)
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["access_token"]
        return token

    return exchange


def give(workspace: httpx.Client, endpoint: Json, level: str) -> None:
    given = {"service_principal_name": ROBOT, "permission_level": level}
    body = {"access_control_list": [given]}
    assert workspace.put(f"{P}/{endpoint['id']}", json=body).status_code == 200


def post(client: httpx.Client, url: str, token: str) -> httpx.Response:
    return client.post(url, json=QUESTION, headers={"Authorization": f"Bearer {token}"})


def assert_invalid_token(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["error_code"]) == (403, 403)
    assert answer.json()["message"].startswith("Invalid access token.")


def test_url_and_authorization_details_are_shown_once_ready(
    emulator: Emulator,
    create: Create,
    entity: Create,
    get: Get,
    advance: Callable[[float], None],
) -> None:
    created = create("fast", entity(**NOT_PROVISIONED), route_optimized=True)
    hidden = {"endpoint_url", "data_plane_info"}
    assert created["route_optimized"] is True and not created.keys() & hidden
    assert not get("fast").keys() & hidden
    advance(600)
    id, shown = created["id"], get("fast")
    url = f"{emulator.url}/route-optimized/{id}/serving-endpoints/fast/invocations"
    info = shown["data_plane_info"]["query_info"]
    assert (shown["endpoint_url"], info["endpoint_url"]) == (url, url)
    assert json.loads(info["authorization_details"]) == [
        {
            "type": "workspace_permission",
            "object_type": "serving-endpoints",
            "object_path": f"/serving-endpoints/{id}",
            "actions": ["query_inference_endpoint"],
        }
    ]


def test_plain_endpoint_has_no_url(
    create: Create, advance: Callable[[float], None], get: Get
) -> None:
    create()
    advance(600)
    assert not get("llama").keys() & {"endpoint_url", "data_plane_info"}


def test_exchanged_token_opens_the_endpoints_url(
    workspace: httpx.Client, anonymous: httpx.Client, make: Get, exchange: Callable[[Json], str]
) -> None:
    endpoint = make("fast")
    give(workspace, endpoint, "CAN_QUERY")
    answer = post(anonymous, endpoint["endpoint_url"], exchange(endpoint))
    assert (answer.status_code, answer.json()["object"]) == (200, "chat.completion")


def test_client_credentials_with_authorization_details_give_such_a_token_at_once(
    workspace: httpx.Client, anonymous: httpx.Client, make: Get, robot: tuple[str, str]
) -> None:
    endpoint = make("fast")
    give(workspace, endpoint, "CAN_QUERY")
    details = endpoint["data_plane_info"]["query_info"]["authorization_details"]
    form = {"grant_type": "client_credentials", "authorization_details": details}
    body = anonymous.post(TOKEN, data=form, auth=robot).json()
    assert body == {
        "access_token": body["access_token"],
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "all-apis",
        "authorization_details": json.loads(details),
    }
    assert post(anonymous, endpoint["endpoint_url"], body["access_token"]).status_code == 200


def test_token_of_an_endpoint_opens_nothing_else(
    workspace: httpx.Client, anonymous: httpx.Client, make: Get, exchange: Callable[[Json], str]
) -> None:
    fast, other = make("fast"), make("other")
    for endpoint in (fast, other):
        give(workspace, endpoint, "CAN_MANAGE")
    token = exchange(fast)
    headers = {"Authorization": f"Bearer {token}"}
    assert_invalid_token(post(anonymous, other["endpoint_url"], token))
    assert_invalid_token(post(anonymous, "/serving-endpoints/fast/invocations", token))
    assert_invalid_token(anonymous.get(f"{B}/fast", headers=headers))
    renamed = fast["endpoint_url"].replace("/fast/", "/other/")
    assert post(anonymous, renamed, token).json()["error_code"] == "ENDPOINT_NOT_FOUND"


def test_token_of_an_endpoint_cannot_be_exchanged_again(
    workspace: httpx.Client, anonymous: httpx.Client, make: Get, exchange: Callable[[Json], str]
) -> None:
    endpoint = make("fast")
    form = {
        "grant_type": JWT_BEARER,
        "assertion": exchange(endpoint),
        "authorization_details": endpoint["data_plane_info"]["query_info"]["authorization_details"],
    }
    answer = anonymous.post(TOKEN, data=form)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


def test_personal_and_whole_api_tokens_are_refused_at_the_endpoints_url(
    workspace: httpx.Client, anonymous: httpx.Client, make: Get, robot: tuple[str, str]
) -> None:
    endpoint = make("fast")
    give(workspace, endpoint, "CAN_MANAGE")
    assert_invalid_token(workspace.post(endpoint["endpoint_url"], json=QUESTION))
    form = {"grant_type": "client_credentials"}
    token = anonymous.post(TOKEN, data=form, auth=robot).json()["access_token"]
    assert_invalid_token(post(anonymous, endpoint["endpoint_url"], token))
    assert anonymous.post(endpoint["endpoint_url"], json=QUESTION).status_code == 401


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/serving-endpoints/fast/invocations", {}),
        ("/serving-endpoints/chat/completions", {"model": "fast"}),
    ],
)
def test_workspace_url_does_not_serve_it(
    workspace: httpx.Client, make: Get, path: str, more: Json
) -> None:
    make("fast")
    answer = workspace.post(path, json={**QUESTION, **more})
    assert (answer.status_code, answer.json()) == (
        400,
        {
            "error_code": "BAD_REQUEST",
            "message": "Endpoint fast is route-optimized. Query it at its endpoint_url, with an "
            "OAuth token for that endpoint.",
        },
    )


def test_permission_is_asked_for_at_the_query(
    workspace: httpx.Client, anonymous: httpx.Client, make: Get, exchange: Callable[[Json], str]
) -> None:
    endpoint = make("fast")
    give(workspace, endpoint, "CAN_VIEW")
    answer = post(anonymous, endpoint["endpoint_url"], exchange(endpoint))
    message = "User does not have permission 'Query' on Endpoint fast"
    body = {"error_code": "PERMISSION_DENIED", "message": message}
    assert (answer.status_code, answer.json()) == (403, body)


def test_token_expires_by_the_workspaces_clock(
    workspace: httpx.Client,
    anonymous: httpx.Client,
    make: Get,
    exchange: Callable[[Json], str],
    advance: Callable[[float], None],
) -> None:
    endpoint = make("fast")
    give(workspace, endpoint, "CAN_QUERY")
    token = exchange(endpoint)
    advance(3600)
    assert_invalid_token(post(anonymous, endpoint["endpoint_url"], token))


def test_token_for_a_plain_endpoint_has_no_url_to_open(
    anonymous: httpx.Client,
    workspace: httpx.Client,
    create: Create,
    robot: tuple[str, str],
    make: Get,
    exchange: Callable[[Json], str],
) -> None:
    shown = make("fast")
    id = create()["id"]
    text = json.dumps(shown).replace(shown["id"], id).replace("/fast/", "/llama/")
    plain = json.loads(text)
    answer = post(anonymous, plain["endpoint_url"], exchange(plain))
    assert (answer.status_code, answer.json()["error_code"]) == (404, "ENDPOINT_NOT_FOUND")


def test_endpoint_of_another_workspace_gets_no_token(
    emulator: Emulator, connect: Connect, anonymous: httpx.Client, make: Get
) -> None:
    endpoint = make("fast")
    details = endpoint["data_plane_info"]["query_info"]["authorization_details"]
    form = {"grant_type": "client_credentials", "authorization_details": details}
    answer = anonymous.post(TOKEN, data=form, auth=("emu.elsewhere", "secret"))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_authorization_details")


def test_foundation_models_cannot_be_route_optimized(
    workspace: httpx.Client, make: Get, entity: Create
) -> None:
    message = (
        "Served entity ml.llm-catalog.foundation-model cannot be route-optimized: route "
        "optimization is for custom models, not for foundation models or external models."
    )
    config = {"served_entities": [entity()]}
    body = {"name": "llama", "config": config, "route_optimized": True}
    refused = workspace.post(B, json=body)
    make("fast")
    updated = workspace.put(f"{B}/fast/config", json=config)
    for answer in (refused, updated):
        shown = answer.json()
        assert (answer.status_code, shown["error_code"], shown["message"]) == (
            400,
            "INVALID_PARAMETER_VALUE",
            message,
        )
    assert workspace.get(f"{B}/llama").status_code == 404


def test_external_models_cannot_be_route_optimized(workspace: httpx.Client) -> None:
    external = {
        "name": "gpt-4o",
        "provider": "openai",
        "task": "llm/v1/chat",
        "openai_config": {"openai_api_key": "{{secrets/a/b}}"},
    }
    config = {"served_entities": [{"external_model": external}]}
    body = {"name": "gpt", "config": config, "route_optimized": True}
    refused = workspace.post(B, json=body)
    assert (refused.status_code, refused.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert refused.json()["message"].startswith(
        "Served entity gpt-4o cannot be route-optimized: route optimization is for custom models"
    )
    assert workspace.post(B, json={**body, "route_optimized": False}).status_code == 200
