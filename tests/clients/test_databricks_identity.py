"""databricks-sdk, unmodified: permissions, who am I, OAuth M2M, and the data-plane client."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import requests
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import (
    InvalidParameterValue,
    PermissionDenied,
    ResourceDoesNotExist,
)
from databricks.sdk.service.serving import (
    ChatMessage,
    ChatMessageRole,
    EndpointCoreConfigInput,
    ServedEntityInput,
    ServingEndpointAccessControlRequest,
    ServingEndpointDetailed,
    ServingEndpointDetailedPermissionLevel,
    ServingEndpointPermissionLevel,
    ServingEndpointPermissions,
)

from servemu.testing import Emulator

MODEL = "ml.llm-catalog.foundation-model"
QUESTION = [ChatMessage(role=ChatMessageRole.USER, content="Hi")]
CAN_VIEW = ServingEndpointPermissionLevel.CAN_VIEW
CAN_QUERY = ServingEndpointPermissionLevel.CAN_QUERY
CAN_MANAGE = ServingEndpointPermissionLevel.CAN_MANAGE


@dataclass(frozen=True, slots=True)
class Lab:
    """A workspace of its own, and clients of those who work in it."""

    url: str
    name: str

    def user(self, name: str | None = None) -> WorkspaceClient:
        """By token; without a name the workspace's admin."""
        token = f"emu.{self.name}" if name is None else f"emu.{self.name}.{name}"
        return WorkspaceClient(host=self.url, token=token)

    def robot(self, application_id: str) -> WorkspaceClient:
        """By OAuth client credentials."""
        client_id = f"emu.{self.name}.{application_id}"
        return WorkspaceClient(host=self.url, client_id=client_id, client_secret="secret")

    def advance(self, seconds: float) -> None:
        answer = requests.post(
            f"{self.url}/_emulator/clock/advance",
            json={"seconds": seconds},
            headers={"Authorization": f"Bearer emu.{self.name}"},
        )
        answer.raise_for_status()

    def deploy(self, client: WorkspaceClient, *, route_optimized: bool) -> ServingEndpointDetailed:
        """A ready endpoint of the client's, not provisioned."""
        config = EndpointCoreConfigInput(
            name="llama", served_entities=[ServedEntityInput(entity_name=MODEL, entity_version="3")]
        )
        client.serving_endpoints.create("llama", config=config, route_optimized=route_optimized)
        self.advance(600)
        return client.serving_endpoints.get("llama")


@pytest.fixture
def lab(emulator: Emulator) -> Lab:
    return Lab(emulator.url, uuid.uuid4().hex)


@pytest.fixture
def application_id() -> str:
    """Of a service principal: a UUID."""
    return str(uuid.uuid4())


def request(
    level: ServingEndpointPermissionLevel, **who: str
) -> ServingEndpointAccessControlRequest:
    return ServingEndpointAccessControlRequest(permission_level=level, **who)


def held(permissions: ServingEndpointPermissions) -> dict[str, list[tuple[str, bool]]]:
    """Who has which levels, and whether they are inherited."""
    shown = {}
    for entry in permissions.access_control_list or []:
        who = entry.user_name or entry.group_name or entry.service_principal_name
        shown[who or ""] = [
            (level.permission_level.value, bool(level.inherited))
            for level in entry.all_permissions or []
            if level.permission_level is not None
        ]
    return shown


def test_get_set_and_update_permissions(lab: Lab, application_id: str) -> None:
    api = lab.user().serving_endpoints
    id = lab.deploy(lab.user(), route_optimized=False).id or ""
    owners = {"me@example.com": [("CAN_MANAGE", False)], "admins": [("CAN_MANAGE", True)]}
    got = api.get_permissions(id)
    assert (got.object_id, got.object_type) == (f"/serving-endpoints/{id}", "serving-endpoint")
    assert held(got) == owners
    given = api.set_permissions(
        id,
        access_control_list=[
            request(CAN_QUERY, user_name="ann@example.com"),
            request(CAN_MANAGE, service_principal_name=application_id),
        ],
    )
    robot = {application_id: [("CAN_MANAGE", False)]}
    assert held(given) == owners | robot | {"ann@example.com": [("CAN_QUERY", False)]}
    merged = api.update_permissions(
        id,
        access_control_list=[
            request(CAN_VIEW, user_name="ann@example.com"),
            request(CAN_VIEW, group_name="users"),
        ],
    )
    viewers = {"ann@example.com": [("CAN_VIEW", False)], "users": [("CAN_VIEW", False)]}
    assert held(merged) == held(api.get_permissions(id)) == owners | robot | viewers


def test_generic_permissions_api_reaches_the_same_list(lab: Lab) -> None:
    id = lab.deploy(lab.user(), route_optimized=False).id or ""
    got = lab.user().permissions.get("serving-endpoints", id)
    assert got.object_id == f"/serving-endpoints/{id}"
    assert len(got.access_control_list or []) == 2


def test_get_permission_levels(lab: Lab) -> None:
    id = lab.deploy(lab.user(), route_optimized=False).id or ""
    levels = lab.user().serving_endpoints.get_permission_levels(id).permission_levels or []
    assert [level.permission_level for level in levels] == [CAN_MANAGE, CAN_QUERY, CAN_VIEW]
    assert all(level.description for level in levels)


def test_bad_and_unknown_ids_raise_the_sdks_errors(lab: Lab) -> None:
    api = lab.user().serving_endpoints
    with pytest.raises(InvalidParameterValue, match="'llama' is not a valid Inference Endpoint ID"):
        api.get_permissions("llama")
    with pytest.raises(ResourceDoesNotExist):
        api.get_permissions("0" * 32)


def test_level_of_the_caller_is_shown_and_enforced(lab: Lab) -> None:
    id = lab.deploy(lab.user(), route_optimized=False).id or ""
    admin, ann = lab.user().serving_endpoints, lab.user("ann").serving_endpoints
    with pytest.raises(PermissionDenied, match="permission 'View' on Endpoint llama"):
        ann.get("llama")
    assert "llama" not in {endpoint.name for endpoint in ann.list()}
    admin.set_permissions(id, access_control_list=[request(CAN_VIEW, user_name="ann@example.com")])
    level = ann.get("llama").permission_level
    assert level is ServingEndpointDetailedPermissionLevel.CAN_VIEW
    with pytest.raises(PermissionDenied, match="permission 'Query' on Endpoint llama"):
        ann.query("llama", messages=QUESTION)
    admin.update_permissions(id, access_control_list=[request(CAN_QUERY, group_name="users")])
    assert ann.query("llama", messages=QUESTION, max_tokens=1).choices
    with pytest.raises(PermissionDenied, match="permission 'Manage' on Endpoint llama"):
        ann.delete("llama")


def test_current_user_of_admin_user_and_service_principal(lab: Lab, application_id: str) -> None:
    clients = lab.user(), lab.user("ann"), lab.user(application_id), lab.robot(application_id)
    people = [client.current_user.me() for client in clients]
    assert [(me.user_name, [g.display for g in me.groups or []]) for me in people] == [
        ("me@example.com", ["admins", "users"]),
        ("ann@example.com", ["users"]),
        (application_id, ["users"]),
        (application_id, ["users"]),
    ]


def test_workspace_id_is_that_of_the_config(lab: Lab) -> None:
    client = lab.user()
    assert client.get_workspace_id() == int(client.config.workspace_id or 0) > 0


def test_m2m_client_deploys_and_queries(lab: Lab, application_id: str) -> None:
    robot = lab.robot(application_id)
    assert robot.config.auth_type == "oauth-m2m"
    endpoint = lab.deploy(robot, route_optimized=False)
    assert endpoint.creator == application_id
    assert robot.serving_endpoints.query("llama", messages=QUESTION, max_tokens=1).choices


def test_m2m_token_expires_by_the_clock_of_the_workspace(lab: Lab, application_id: str) -> None:
    robot = lab.robot(application_id)
    assert robot.current_user.me().user_name == application_id
    lab.advance(3600)
    with pytest.raises(PermissionDenied, match="Invalid access token"):
        robot.current_user.me()


def test_data_plane_query_with_oauth(lab: Lab, application_id: str) -> None:
    robot = lab.robot(application_id)
    endpoint = lab.deploy(robot, route_optimized=True)
    assert endpoint.data_plane_info is not None and endpoint.route_optimized
    assert endpoint.data_plane_info.query_info is not None
    assert endpoint.data_plane_info.query_info.endpoint_url == endpoint.endpoint_url
    for _ in range(2):
        answer = robot.serving_endpoints_data_plane.query("llama", messages=QUESTION, max_tokens=1)
        assert answer.choices and answer.served_model_name == "foundation-model-3"


def test_data_plane_query_without_permission_is_denied(lab: Lab, application_id: str) -> None:
    id = lab.deploy(lab.user(), route_optimized=True).id or ""
    given = [request(CAN_VIEW, service_principal_name=application_id)]
    lab.user().serving_endpoints.set_permissions(id, access_control_list=given)
    with pytest.raises(PermissionDenied, match="permission 'Query' on Endpoint llama"):
        lab.robot(application_id).serving_endpoints_data_plane.query("llama", messages=QUESTION)


def test_data_plane_query_of_a_plain_endpoint_says_that_there_is_none(
    lab: Lab, application_id: str
) -> None:
    robot = lab.robot(application_id)
    lab.deploy(robot, route_optimized=False)
    with pytest.raises(Exception, match="does not support direct Data Plane access"):
        robot.serving_endpoints_data_plane.query("llama", messages=QUESTION)


@pytest.mark.parametrize("of", [Lab.user, lambda lab: lab.robot("robot")], ids=["user", "robot"])
def test_two_workspaces_never_see_each_other(
    emulator: Emulator, lab: Lab, of: Callable[[Lab], WorkspaceClient]
) -> None:
    id = lab.deploy(of(lab), route_optimized=False).id or ""
    elsewhere = of(Lab(emulator.url, uuid.uuid4().hex)).serving_endpoints
    assert "llama" not in {endpoint.name for endpoint in elsewhere.list()}
    for ask in (elsewhere.get, elsewhere.delete):
        with pytest.raises(ResourceDoesNotExist, match="'llama' does not exist"):
            ask("llama")
    with pytest.raises(ResourceDoesNotExist, match=f"'{id}' does not exist"):
        elsewhere.get_permissions(id)
