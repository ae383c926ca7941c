"""OAuth: client credentials, token exchange, expiry, and what is refused."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from servemu.clock import PausedClock
from servemu.settings import Settings
from servemu.testing import Emulator, serve

Json = dict[str, Any]
Connect = Callable[..., httpx.Client]

B = "/api/2.0/serving-endpoints"
ME = "/api/2.0/preview/scim/v2/Me"
TOKEN = "/oidc/v1/token"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ROBOT = "6f9619ff-8b86-4d01-b42d-00c04fc964ff"


@pytest.fixture
def client_id(workspace: httpx.Client) -> str:
    """OAuth client of the test's workspace."""
    token = workspace.headers["Authorization"].removeprefix("Bearer ")
    return f"{token}.{ROBOT}"


@pytest.fixture
def anonymous(emulator: Emulator) -> Iterator[httpx.Client]:
    """Plain HTTP without a token."""
    with httpx.Client(base_url=emulator.url, trust_env=False, timeout=20) as client:
        yield client


@pytest.fixture
def robot(anonymous: httpx.Client, client_id: str) -> httpx.Client:
    """The service principal, with a token that it was issued."""
    token = granted(anonymous, client_id)["access_token"]
    anonymous.headers["Authorization"] = f"Bearer {token}"
    return anonymous


def granted(client: httpx.Client, client_id: str, **form: str) -> Json:
    data = {"grant_type": "client_credentials", "scope": "all-apis", **form}
    answer = client.post(TOKEN, data=data, auth=(client_id, "secret"))
    assert answer.status_code == 200, answer.text
    body: Json = answer.json()
    return body


def details(id: str, action: str = "query_inference_endpoint") -> str:
    return json.dumps(
        [
            {
                "type": "workspace_permission",
                "object_type": "serving-endpoints",
                "object_path": f"/serving-endpoints/{id}",
                "actions": [action],
            }
        ]
    )


def refused(answer: httpx.Response) -> tuple[int, str]:
    assert answer.json().keys() == {"error", "error_description"}
    return answer.status_code, answer.json()["error"]


def assert_invalid_token(answer: httpx.Response) -> None:
    request_id = answer.headers["x-request-id"]
    message = f"Invalid access token. [ReqId: {request_id}]"
    assert (answer.status_code, answer.json()) == (403, {"error_code": 403, "message": message})


@pytest.mark.parametrize("document", ["oauth-authorization-server", "openid-configuration"])
def test_metadata_names_the_token_endpoint(
    emulator: Emulator, anonymous: httpx.Client, document: str
) -> None:
    answer = anonymous.get(f"/oidc/.well-known/{document}")
    issuer = f"{emulator.url}/oidc"
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/v1/authorize",
            "token_endpoint": f"{issuer}/v1/token",
            "grant_types_supported": ["client_credentials", JWT_BEARER],
            "response_types_supported": ["code"],
            "scopes_supported": ["all-apis"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        },
    )


def test_client_credentials_give_a_token_of_an_hour(
    anonymous: httpx.Client, client_id: str
) -> None:
    body = granted(anonymous, client_id)
    assert body == {
        "access_token": body["access_token"],
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "all-apis",
    }
    assert body["access_token"] != granted(anonymous, client_id)["access_token"]


def test_credentials_may_be_in_the_form(anonymous: httpx.Client, client_id: str) -> None:
    form = {
        "grant_type": "client_credentials",
        "client_id": client_id,
        "client_secret": "secret",
    }
    token = anonymous.post(TOKEN, data=form).json()["access_token"]
    me = anonymous.get(ME, headers={"Authorization": f"Bearer {token}"}).json()
    assert me["userName"] == ROBOT


@pytest.mark.parametrize(
    ("client_id", "user", "workspace"),
    [
        (ROBOT, ROBOT, "anything"),
        ("my-client", "my-client", "anything"),
        ("emu.m2m", "emu.m2m", "emu.m2m"),
        (f"emu.m2m.{ROBOT}", ROBOT, "emu.m2m"),
        ("emu.m2m.robot", "robot", "emu.m2m"),
    ],
)
def test_client_id_chooses_service_principal_and_workspace(
    emulator: Emulator,
    connect: Connect,
    anonymous: httpx.Client,
    client_id: str,
    user: str,
    workspace: str,
) -> None:
    token = granted(anonymous, client_id)["access_token"]
    answer = anonymous.get(ME, headers={"Authorization": f"Bearer {token}"})
    assert answer.json()["userName"] == user
    assert answer.json()["groups"][0]["display"] == "users"
    with connect(emulator.url, workspace) as same:
        org = same.get(ME).headers["x-databricks-org-id"]
    assert answer.headers["x-databricks-org-id"] == org


def test_token_endpoint_answers_with_the_clients_workspace_id(
    workspace: httpx.Client, anonymous: httpx.Client, client_id: str
) -> None:
    form = {"grant_type": "client_credentials"}
    answer = anonymous.post(TOKEN, data=form, auth=(client_id, "s"))
    org = workspace.get(ME).headers["x-databricks-org-id"]
    assert answer.headers["x-databricks-org-id"] == org
    assert answer.headers["cache-control"] == "no-store"


def test_creator_is_the_service_principal(
    workspace: httpx.Client, robot: httpx.Client, entity: Callable[[], Json]
) -> None:
    body = {"name": "llama", "config": {"served_entities": [entity()]}}
    created = robot.post(B, json=body).json()
    assert (created["creator"], created["creator_kind"]) == (ROBOT, "ServicePrincipal")
    assert workspace.get(f"{B}/llama").json() == created


def test_token_expires_by_the_clock_of_its_workspace(
    robot: httpx.Client, advance: Callable[[float], None]
) -> None:
    advance(3599)
    assert robot.get(ME).status_code == 200
    advance(1)
    assert_invalid_token(robot.get(ME))


def test_clock_of_another_workspace_changes_nothing(
    emulator: Emulator, connect: Connect, robot: httpx.Client
) -> None:
    with connect(emulator.url) as other:
        other.post("/_emulator/clock/advance", json={"seconds": 7200})
    assert robot.get(ME).status_code == 200


def changed_payload(token: str) -> str:
    """The same token, issued to somebody else."""
    header, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["sub"] = "me@example.com"
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"{header}.{forged}.{signature}"


@pytest.mark.parametrize(
    "forge",
    [
        changed_payload,
        lambda token: token.rpartition(".")[0] + ".",
        lambda token: token.rpartition(".")[0],
        lambda token: token + "x",
        lambda token: token.partition(".")[0] + ".%%%.ä",
    ],
    ids=["payload", "no signature", "two parts", "longer", "garbage"],
)
def test_forged_token_is_refused(robot: httpx.Client, forge: Callable[[str], str]) -> None:
    token = robot.headers["Authorization"].removeprefix("Bearer ")
    header = f"Bearer {forge(token)}".encode("latin-1")
    assert_invalid_token(robot.get(ME, headers={b"Authorization": header}))


def test_token_of_another_issuer_is_anybodys(anonymous: httpx.Client) -> None:
    token = "eyJhbGciOiJub25lIn0.e30."
    me = anonymous.get(ME, headers={"Authorization": f"Bearer {token}"}).json()
    assert me["userName"] == "me@example.com"


@pytest.mark.parametrize(
    ("form", "credentials", "failure"),
    [
        ({}, ("a", "b"), (400, "invalid_request")),
        ({"grant_type": "password"}, ("a", "b"), (400, "unsupported_grant_type")),
        ({"grant_type": "client_credentials"}, None, (401, "invalid_client")),
        ({"grant_type": "client_credentials"}, ("a", ""), (401, "invalid_client")),
        ({"grant_type": "client_credentials"}, ("", "b"), (401, "invalid_client")),
        ({"grant_type": JWT_BEARER}, None, (400, "invalid_request")),
        ({"grant_type": JWT_BEARER, "assertion": "x"}, None, (400, "invalid_request")),
        (
            {"grant_type": JWT_BEARER, "assertion": "dapi1", "authorization_details": "[]"},
            None,
            (400, "invalid_grant"),
        ),
        (
            {"grant_type": "client_credentials", "authorization_details": "[]"},
            ("a", "b"),
            (400, "invalid_authorization_details"),
        ),
        (
            {"grant_type": "client_credentials", "authorization_details": "{"},
            ("a", "b"),
            (400, "invalid_authorization_details"),
        ),
        (
            {"grant_type": "client_credentials", "authorization_details": details("llama")},
            ("a", "b"),
            (400, "invalid_authorization_details"),
        ),
        (
            {"grant_type": "client_credentials", "authorization_details": details("0" * 32)},
            ("a", "b"),
            (400, "invalid_authorization_details"),
        ),
        (
            {
                "grant_type": "client_credentials",
                "authorization_details": details("0" * 32, "own_everything"),
            },
            ("a", "b"),
            (400, "invalid_authorization_details"),
        ),
    ],
)
def test_refusal_has_oauths_shape(
    anonymous: httpx.Client,
    form: dict[str, str],
    credentials: tuple[str, str] | None,
    failure: tuple[int, str],
) -> None:
    if credentials is not None:
        anonymous.auth = httpx.BasicAuth(*credentials)
    answer = anonymous.post(TOKEN, data=form)
    assert refused(answer) == failure
    assert ("www-authenticate" in answer.headers) == (failure[0] == 401)


@pytest.mark.parametrize("header", ["Basic %%%", "Basic " + base64.b64encode(b"\xff").decode()])
def test_garbled_basic_credentials_are_refused(anonymous: httpx.Client, header: str) -> None:
    form = {"grant_type": "client_credentials"}
    answer = anonymous.post(TOKEN, data=form, headers={"Authorization": header})
    assert refused(answer) == (401, "invalid_client")


def test_token_survives_a_restart_that_keeps_the_database(tmp_path: Path, connect: Connect) -> None:
    settings = Settings(engine="synthetic", port=0, database=str(tmp_path / "a.db"))
    with serve(settings, PausedClock()) as first, connect(first.url) as client:
        token = granted(client, "emu.kept.robot")["access_token"]
    with serve(settings, PausedClock()) as second, connect(second.url, token) as client:
        assert client.get(ME).json()["userName"] == "robot"


def test_token_of_another_database_is_forged(emulator: Emulator, connect: Connect) -> None:
    with serve(Settings(engine="synthetic", port=0), PausedClock()) as elsewhere:
        with connect(elsewhere.url) as client:
            token = granted(client, "robot")["access_token"]
        with connect(emulator.url, token) as client:
            assert_invalid_token(client.get(ME))


@pytest.fixture(scope="module")
def strict() -> Iterator[Emulator]:
    """Lets in one token, as somebody, and one OAuth client."""
    settings = Settings(
        engine="synthetic",
        port=0,
        auth="strict",
        tokens={"dapi-ann": "lab.ann", "dapi-me": "lab"},
        clients={"emu.lab.robot": "right"},
    )
    with serve(settings, PausedClock()) as running:
        yield running


def test_strict_auth_knows_whose_the_tokens_of_the_table_are(
    strict: Emulator, connect: Connect
) -> None:
    with connect(strict.url, "dapi-ann") as ann, connect(strict.url, "dapi-me") as me:
        names = [client.get(ME).json()["userName"] for client in (ann, me)]
        orgs = {client.get(ME).headers["x-databricks-org-id"] for client in (ann, me)}
    assert names == ["ann@example.com", "me@example.com"]
    assert len(orgs) == 1


@pytest.mark.parametrize("token", ["anything", "emu.lab.ann", "emu.lab"])
def test_strict_auth_lets_no_other_token_in(strict: Emulator, connect: Connect, token: str) -> None:
    with connect(strict.url, token) as client:
        assert_invalid_token(client.get(ME))


def test_strict_auth_lets_configured_clients_in_only(strict: Emulator, connect: Connect) -> None:
    form = {"grant_type": "client_credentials"}
    with connect(strict.url) as client:
        for credentials in (("emu.lab.robot", "wrong"), ("other", "right"), ("other", "")):
            answer = client.post(TOKEN, data=form, auth=credentials)
            assert refused(answer) == (401, "invalid_client")
        token = client.post(TOKEN, data=form, auth=("emu.lab.robot", "right")).json()
    with connect(strict.url, token["access_token"]) as robot:
        assert robot.get(ME).json()["userName"] == "robot"
