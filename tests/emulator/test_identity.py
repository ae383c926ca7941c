"""Who asks, where: tokens, workspaces, the headers that every answer carries."""

import base64
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import pytest

from servemu.auth import Principal, principal_of
from servemu.testing import Emulator

Json = dict[str, Any]
Connect = Callable[..., httpx.Client]
Create = Callable[..., Json]

B = "/api/2.0/serving-endpoints"
ME = "/api/2.0/preview/scim/v2/Me"
CONFIG = "/.well-known/databricks-config"
ROBOT = "6f9619ff-8b86-4d01-b42d-00c04fc964ff"


def basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", B, 200),
        ("POST", B, 400),
        ("GET", f"{B}/none", 404),
        ("GET", "/no/such/path", 404),
        ("PUT", B, 404),
        ("GET", ME, 200),
        ("GET", CONFIG, 200),
        ("GET", "/_emulator/health", 200),
        ("POST", "/telemetry-ext", 200),
        ("POST", "/serving-endpoints/none/invocations", 404),
    ],
)
def test_every_answer_has_a_request_id_and_a_numeric_workspace_id(
    workspace: httpx.Client, method: str, path: str, status: int
) -> None:
    first, second = (workspace.request(method, path) for _ in range(2))
    assert first.status_code == status
    ids = {UUID(answer.headers["x-request-id"]) for answer in (first, second)}
    assert len(ids) == 2
    org = first.headers["x-databricks-org-id"]
    assert org.isascii() and org.isdigit() and len(org) == 16
    assert org == workspace.get(B).headers["x-databricks-org-id"]


def test_refused_caller_gets_the_headers_too(workspace: httpx.Client) -> None:
    del workspace.headers["Authorization"]
    answer = workspace.get(B)
    assert answer.status_code == 401
    assert answer.headers.keys() >= {"x-request-id", "x-databricks-org-id"}


def test_workspaces_have_different_ids(emulator: Emulator, connect: Connect) -> None:
    with connect(emulator.url, "emu.a") as a, connect(emulator.url, "emu.b") as b:
        ids = [client.get(B).headers["x-databricks-org-id"] for client in (a, b)]
    assert len(set(ids)) == 2


def test_databricks_config_needs_no_token_and_names_this_host(
    emulator: Emulator, workspace: httpx.Client
) -> None:
    answer = workspace.get(CONFIG)
    assert answer.json() == {
        "oidc_endpoint": f"{emulator.url}/oidc",
        "account_id": str(UUID(answer.json()["account_id"])),
        "workspace_id": answer.headers["x-databricks-org-id"],
        "cloud": "aws",
        "host_type": "WORKSPACE_HOST",
    }
    del workspace.headers["Authorization"]
    anonymous = workspace.get(CONFIG)
    assert anonymous.status_code == 200
    assert anonymous.json()["workspace_id"] == anonymous.headers["x-databricks-org-id"]


def scim(user: str, groups: list[str], me: Json) -> Json:
    """The body of `Me`, with the ids that it has."""
    ids = [group["value"] for group in me["groups"]]
    assert me["id"].isdigit() and all(id.isdigit() for id in ids)
    return {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "id": me["id"],
        "userName": user,
        "displayName": user,
        "active": True,
        "groups": [
            {"display": group, "type": "direct", "value": id}
            for group, id in zip(groups, ids, strict=True)
        ],
    }


def work_email(user: str) -> Json:
    return {"emails": [{"value": user, "type": "work", "primary": True}]}


def test_me_of_the_default_user_is_an_admin(workspace: httpx.Client) -> None:
    me = workspace.get(ME).json()
    user = "me@example.com"
    entitlements = {"entitlements": [{"value": "workspace-access"}]}
    assert me == scim(user, ["admins", "users"], me) | work_email(user) | entitlements


def test_me_of_another_user_is_not_an_admin_and_leaves_out_what_is_excluded(
    emulator: Emulator, connect: Connect
) -> None:
    with connect(emulator.url, "emu.a.ann") as client:
        me = client.get(ME, params={"excludedAttributes": "entitlements"}).json()
        bare = client.get(ME, params={"excludedAttributes": "groups, emails,id"}).json()
    assert me == scim("ann@example.com", ["users"], me) | work_email("ann@example.com")
    assert bare.keys() == me.keys() - {"groups", "emails"} | {"entitlements"}


def test_me_of_a_service_principal_has_its_application_id_and_no_email(
    emulator: Emulator, connect: Connect
) -> None:
    with connect(emulator.url, f"emu.a.{ROBOT}") as client:
        me = client.get(ME, params={"excludedAttributes": "entitlements"}).json()
    assert me == scim(ROBOT, ["users"], me)


@pytest.mark.parametrize(
    ("token", "user", "workspace"),
    [
        ("dapi123", "me@example.com", "default"),
        ("emu", "me@example.com", "default"),
        ("emu.", "me@example.com", "default"),
        ("emulator.a", "me@example.com", "default"),
        ("emu.a", "me@example.com", "a"),
        ("emu.a.", "me@example.com", "a"),
        ("emu.a.ann", "ann@example.com", "a"),
        ("emu.a.ann@corp.com", "ann@corp.com", "a"),
        ("emu.a.ann.b@corp.com", "ann.b@corp.com", "a"),
    ],
)
def test_token_chooses_user_and_workspace(token: str, user: str, workspace: str) -> None:
    assert principal_of(token) == Principal(user, workspace)


def test_uuid_as_user_is_a_service_principal() -> None:
    principal = principal_of(f"emu.a.{ROBOT}")
    assert principal == Principal(ROBOT, "a", is_service_principal=True)
    assert not principal.is_admin


@pytest.mark.parametrize(
    "credential", ["Bearer emu.basic.ann", "bearer emu.basic.ann", basic("token:emu.basic.ann")]
)
def test_token_is_taken_as_bearer_and_as_basic_password(
    workspace: httpx.Client, credential: str
) -> None:
    answer = workspace.get(ME, headers={"Authorization": credential})
    assert answer.json()["userName"] == "ann@example.com"


def test_users_of_a_workspace_share_its_endpoints(
    emulator: Emulator, connect: Connect, entity: Callable[[], Json]
) -> None:
    with connect(emulator.url, "emu.shared.ann") as ann, connect(emulator.url, "emu.shared") as me:
        body = {"name": "llama", "config": {"served_entities": [entity()]}}
        created = ann.post(B, json=body).json()
        assert me.get(f"{B}/llama").json() == created
    assert (created["creator"], created["creator_display_name"]) == ("ann@example.com",) * 2
    assert created["pending_config"]["served_entities"][0]["creator"] == "ann@example.com"


def test_workspaces_do_not_see_each_others_endpoints_faults_and_clock(
    emulator: Emulator, connect: Connect, workspace: httpx.Client, create: Create
) -> None:
    created = create()
    rule = workspace.post("/_emulator/faults", json={"id": "r", "preset": "no-gpu-capacity"})
    with connect(emulator.url) as other:
        assert other.get(f"{B}/llama").status_code == 404
        assert other.delete(f"{B}/llama").status_code == 404
        assert [e for e in other.get(B).json()["endpoints"] if "id" in e] == []
        assert other.get("/_emulator/faults").json() == {"faults": []}
        assert other.delete("/_emulator/faults").status_code == 200
        before = other.get("/_emulator/clock").json()
        advanced = other.post("/_emulator/clock/advance", json={"seconds": 60}).json()
        assert advanced == {
            "now": before["now"] + 60,
            "advanced_by": 60.0,
            "speedup": 60.0,
        }
        again = other.post("/_emulator/faults", json={"id": "r", "preset": "no-gpu-capacity"})
        assert again.status_code == 200
    assert workspace.get(f"{B}/llama").json() == created
    assert workspace.get("/_emulator/faults").json() == {"faults": [rule.json()]}
    assert workspace.get("/_emulator/clock").json() == before


def test_health_counts_the_endpoints_of_the_caller(workspace: httpx.Client, create: Create) -> None:
    create()
    health = workspace.get("/_emulator/health").json()
    assert health.pop("uptime_seconds") >= 0
    assert health == {
        "status": "ok",
        "version": health["version"],
        "engine": "synthetic",
        "database": ":memory:",
        "endpoints": 1,
        "speedup": 60.0,
    }
