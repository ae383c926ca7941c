"""Access control lists and what they let others do (facts/control_plane §1.3)."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from servemu.access import Level
from servemu.app import ROUTES
from servemu.routes.guard import needed
from servemu.testing import Emulator

Json = dict[str, Any]
Connect = Callable[..., httpx.Client]
Create = Callable[..., Json]

B = "/api/2.0/serving-endpoints"
P = "/api/2.0/permissions/serving-endpoints"
QUESTION = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
ROBOT = "6f9619ff-8b86-4d01-b42d-00c04fc964ff"
ME = {"user_name": "me@example.com", "display_name": "me@example.com"}
DIRECT = {"permission_level": "CAN_MANAGE", "inherited": False}
ADMINS = {
    "group_name": "admins",
    "all_permissions": [
        {
            "permission_level": "CAN_MANAGE",
            "inherited": True,
            "inherited_from_object": ["/serving-endpoints/"],
        }
    ],
}


def acl(id: str, *between: Json) -> Json:
    """The body of an endpoint of the default user, with what others were given."""
    creator = {**ME, "all_permissions": [DIRECT]}
    return {
        "object_id": f"/serving-endpoints/{id}",
        "object_type": "serving-endpoint",
        "access_control_list": [creator, *between, ADMINS],
    }


def entry(kind: str, name: str, level: str) -> Json:
    shown = {} if kind == "group_name" else {"display_name": name}
    held = [{"permission_level": level, "inherited": False}]
    return {kind: name, **shown, "all_permissions": held}


def asked(*given: tuple[str, str, str]) -> Json:
    return {
        "access_control_list": [
            {kind: name, "permission_level": level} for kind, name, level in given
        ]
    }


def denied(answer: httpx.Response) -> tuple[int, str, str]:
    body = answer.json()
    return answer.status_code, body["error_code"], body["message"]


def refusal(word: str) -> tuple[int, str, str]:
    message = f"User does not have permission '{word}' on Endpoint llama"
    return 403, "PERMISSION_DENIED", message


@pytest.fixture
def ann(emulator: Emulator, workspace: httpx.Client, connect: Connect) -> Iterator[httpx.Client]:
    """A plain user of the test's workspace."""
    token = workspace.headers["Authorization"].removeprefix("Bearer ")
    with connect(emulator.url, f"{token}.ann") as client:
        yield client


@pytest.fixture
def robot(emulator: Emulator, workspace: httpx.Client, connect: Connect) -> Iterator[httpx.Client]:
    """A service principal of the test's workspace."""
    token = workspace.headers["Authorization"].removeprefix("Bearer ")
    with connect(emulator.url, f"{token}.{ROBOT}") as client:
        yield client


@pytest.fixture
def llama(create: Create, advance: Callable[[float], None]) -> str:
    """The id of a ready endpoint that the admin made."""
    id: str = create()["id"]
    advance(3)
    return id


def test_new_endpoint_is_managed_by_its_creator_and_the_admins(
    workspace: httpx.Client, llama: str
) -> None:
    answer = workspace.get(f"{P}/{llama}")
    assert (answer.status_code, answer.json()) == (200, acl(llama))


def test_put_replaces_and_answers_what_get_shows(workspace: httpx.Client, llama: str) -> None:
    workspace.put(f"{P}/{llama}", json=asked(("user_name", "bob@x.com", "CAN_MANAGE")))
    answer = workspace.put(
        f"{P}/{llama}",
        json=asked(
            ("user_name", "ann@example.com", "CAN_QUERY"),
            ("group_name", "users", "CAN_VIEW"),
            ("service_principal_name", ROBOT, "CAN_MANAGE"),
        ),
    )
    expected = acl(
        llama,
        entry("group_name", "users", "CAN_VIEW"),
        entry("service_principal_name", ROBOT, "CAN_MANAGE"),
        entry("user_name", "ann@example.com", "CAN_QUERY"),
    )
    assert (answer.status_code, answer.json()) == (200, expected)
    assert workspace.get(f"{P}/{llama}").json() == expected


def test_patch_merges(workspace: httpx.Client, llama: str) -> None:
    workspace.put(
        f"{P}/{llama}",
        json=asked(("user_name", "ann@x.com", "CAN_QUERY"), ("user_name", "bob@x.com", "CAN_VIEW")),
    )
    answer = workspace.patch(
        f"{P}/{llama}",
        json=asked(("user_name", "ann@x.com", "CAN_VIEW"), ("group_name", "users", "CAN_VIEW")),
    )
    expected = acl(
        llama,
        entry("group_name", "users", "CAN_VIEW"),
        entry("user_name", "ann@x.com", "CAN_VIEW"),
        entry("user_name", "bob@x.com", "CAN_VIEW"),
    )
    assert (answer.status_code, answer.json()) == (200, expected)


@pytest.mark.parametrize("body", [{}, {"access_control_list": []}])
def test_put_of_nothing_leaves_creator_and_admins(
    workspace: httpx.Client, llama: str, body: Json
) -> None:
    workspace.put(f"{P}/{llama}", json=asked(("user_name", "ann@x.com", "CAN_QUERY")))
    assert workspace.put(f"{P}/{llama}", json=body).json() == acl(llama)


def test_creator_stays_manager_whatever_a_list_says(workspace: httpx.Client, llama: str) -> None:
    less = asked(("user_name", "me@example.com", "CAN_VIEW"))
    assert workspace.put(f"{P}/{llama}", json=less).json() == acl(llama)
    assert workspace.patch(f"{P}/{llama}", json=less).json() == acl(llama)


def test_admins_have_a_direct_permission_beside_the_inherited_one(
    workspace: httpx.Client, llama: str
) -> None:
    given = asked(("group_name", "admins", "CAN_MANAGE"))
    shown = workspace.put(f"{P}/{llama}", json=given).json()
    [*_, admins] = shown["access_control_list"]
    assert admins == {
        "group_name": "admins",
        "all_permissions": [*ADMINS["all_permissions"], DIRECT],
    }


def test_permission_levels_are_three(workspace: httpx.Client, llama: str) -> None:
    answer = workspace.get(f"{P}/{llama}/permissionLevels")
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "permission_levels": [
                {
                    "permission_level": "CAN_MANAGE",
                    "description": "Can manage the serving endpoint.",
                },
                {
                    "permission_level": "CAN_QUERY",
                    "description": "Can query the serving endpoint.",
                },
                {"permission_level": "CAN_VIEW", "description": "Can view the serving endpoint."},
            ]
        },
    )


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH"])
@pytest.mark.parametrize("id", ["llama", "null", "0" * 31, "g" * 32, "0" * 33])
def test_id_that_is_none_is_a_400(workspace: httpx.Client, method: str, id: str) -> None:
    answer = workspace.request(method, f"{P}/{id}")
    message = f"'{id}' is not a valid Inference Endpoint ID."
    assert denied(answer) == (400, "INVALID_PARAMETER_VALUE", message)


@pytest.mark.parametrize("path", [f"{P}/{'0' * 32}", f"{P}/{'0' * 32}/permissionLevels"])
def test_unknown_id_is_a_404(workspace: httpx.Client, path: str) -> None:
    message = f"Endpoint with id '{'0' * 32}' does not exist."
    assert denied(workspace.get(path)) == (404, "RESOURCE_DOES_NOT_EXIST", message)


@pytest.mark.parametrize(
    ("given", "about"),
    [
        ({"user_name": "a"}, "access_control_list[0].permission_level"),
        ({"user_name": "a", "permission_level": "IS_OWNER"}, "permission_level"),
        ({"permission_level": "CAN_VIEW"}, "Exactly one of"),
        ({"user_name": "", "permission_level": "CAN_VIEW"}, "Exactly one of"),
        ({"user_name": "a", "group_name": "b", "permission_level": "CAN_VIEW"}, "Exactly one of"),
        ("ann", "access_control_list[0]"),
    ],
)
def test_bad_entry_is_refused_and_changes_nothing(
    workspace: httpx.Client, llama: str, given: object, about: str
) -> None:
    body = {"access_control_list": [given]}
    status, code, message = denied(workspace.put(f"{P}/{llama}", json=body))
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert about in message
    assert workspace.get(f"{P}/{llama}").json() == acl(llama)


def test_other_workspace_has_no_such_id(
    emulator: Emulator, connect: Connect, workspace: httpx.Client, llama: str
) -> None:
    with connect(emulator.url) as other:
        assert other.get(f"{P}/{llama}").status_code == 404
        assert other.put(f"{P}/{llama}", json=asked()).status_code == 404
    assert workspace.get(f"{P}/{llama}").json() == acl(llama)


def test_recreated_endpoint_starts_with_a_fresh_list(
    workspace: httpx.Client, ann: httpx.Client, llama: str, create: Create
) -> None:
    workspace.put(f"{P}/{llama}", json=asked(("user_name", "ann@example.com", "CAN_QUERY")))
    workspace.delete(f"{B}/llama")
    assert workspace.get(f"{P}/{llama}").status_code == 404
    id = create()["id"]
    assert workspace.get(f"{P}/{id}").json() == acl(id)
    assert denied(ann.get(f"{B}/llama")) == refusal("View")


def own(client: httpx.Client) -> dict[str, str]:
    """Name and level of the listed endpoints that are not Databricks' own."""
    listed = client.get(B).json()["endpoints"]
    return {e["name"]: e["permission_level"] for e in listed if "id" in e}


def query(client: httpx.Client) -> httpx.Response:
    return client.post("/serving-endpoints/llama/invocations", json=QUESTION)


def test_stranger_sees_and_does_nothing(ann: httpx.Client, llama: str) -> None:
    assert own(ann) == {}
    assert denied(ann.get(f"{B}/llama")) == refusal("View")
    assert denied(query(ann)) == refusal("Query")
    assert denied(ann.patch(f"{B}/llama/tags", json={})) == refusal("Manage")
    assert denied(ann.delete(f"{B}/llama")) == refusal("Manage")
    assert denied(ann.get(f"{P}/{llama}")) == refusal("Manage")
    assert denied(ann.put(f"{P}/{llama}", json=asked())) == refusal("Manage")
    assert denied(ann.get(f"{P}/{llama}/permissionLevels")) == refusal("View")


def test_refused_query_has_the_data_planes_shape(ann: httpx.Client, llama: str) -> None:
    message = "User does not have permission 'Query' on Endpoint llama"
    body = {"error_code": "PERMISSION_DENIED", "message": message}
    openai = ann.post("/serving-endpoints/chat/completions", json={"model": "llama", **QUESTION})
    assert [query(ann).json(), openai.json()] == [body, body]


@pytest.mark.parametrize(
    ("level", "may_query", "may_manage"),
    [("CAN_VIEW", False, False), ("CAN_QUERY", True, False), ("CAN_MANAGE", True, True)],
)
@pytest.mark.parametrize(
    ("kind", "name"), [("user_name", "ann@example.com"), ("group_name", "users")]
)
def test_level_lets_do_what_it_says(
    workspace: httpx.Client,
    ann: httpx.Client,
    llama: str,
    kind: str,
    name: str,
    level: str,
    may_query: bool,
    may_manage: bool,
) -> None:
    workspace.put(f"{P}/{llama}", json=asked((kind, name, level)))
    assert own(ann) == {"llama": level}
    assert ann.get(f"{B}/llama").json()["permission_level"] == level
    assert ann.get(f"{P}/{llama}/permissionLevels").status_code == 200
    assert query(ann).status_code == (200 if may_query else 403)
    assert ann.get(f"{P}/{llama}").status_code == (200 if may_manage else 403)
    assert ann.delete(f"{B}/llama").status_code == (200 if may_manage else 403)


def test_highest_of_own_and_group_level_counts(
    workspace: httpx.Client, ann: httpx.Client, llama: str
) -> None:
    both = asked(("user_name", "ann@example.com", "CAN_VIEW"), ("group_name", "users", "CAN_QUERY"))
    workspace.put(f"{P}/{llama}", json=both)
    assert own(ann) == {"llama": "CAN_QUERY"}
    assert query(ann).status_code == 200


def test_withdrawn_permission_counts_at_once(
    workspace: httpx.Client, ann: httpx.Client, llama: str
) -> None:
    workspace.put(f"{P}/{llama}", json=asked(("user_name", "ann@example.com", "CAN_QUERY")))
    assert query(ann).status_code == 200
    workspace.put(f"{P}/{llama}", json=asked())
    assert denied(query(ann)) == refusal("Query")


def test_permission_of_another_kind_or_group_is_no_permission(
    workspace: httpx.Client, robot: httpx.Client, ann: httpx.Client, llama: str
) -> None:
    others = asked(
        ("user_name", ROBOT, "CAN_MANAGE"),
        ("service_principal_name", "ann@example.com", "CAN_MANAGE"),
        ("group_name", "scientists", "CAN_MANAGE"),
    )
    workspace.put(f"{P}/{llama}", json=others)
    assert (own(robot), own(ann)) == ({}, {})


def test_service_principal_is_creator_of_its_own_kind(
    workspace: httpx.Client, robot: httpx.Client, entity: Callable[[], Json]
) -> None:
    body = {"name": "llama", "config": {"served_entities": [entity()]}}
    created = robot.post(B, json=body).json()
    assert [created[key] for key in ("creator", "creator_kind", "creator_display_name")] == [
        ROBOT,
        "ServicePrincipal",
        ROBOT,
    ]
    assert own(robot) == own(workspace) == {"llama": "CAN_MANAGE"}
    shown = robot.get(f"{P}/{created['id']}").json()["access_control_list"]
    assert shown == [entry("service_principal_name", ROBOT, "CAN_MANAGE"), ADMINS]


def test_plain_user_manages_what_it_created_and_others_do_not_see_it(
    emulator: Emulator,
    connect: Connect,
    workspace: httpx.Client,
    ann: httpx.Client,
    entity: Callable[[], Json],
) -> None:
    body = {"name": "llama", "config": {"served_entities": [entity()]}}
    assert ann.post(B, json=body).json()["permission_level"] == "CAN_MANAGE"
    assert own(ann) == {"llama": "CAN_MANAGE"}
    token = workspace.headers["Authorization"].removeprefix("Bearer ")
    with connect(emulator.url, f"{token}.bob") as bob:
        assert own(bob) == {}
        assert bob.post(B, json=body).json()["error_code"] == "RESOURCE_ALREADY_EXISTS"
    assert ann.delete(f"{B}/llama").status_code == 200


def test_unknown_endpoint_is_a_404_for_everybody(ann: httpx.Client) -> None:
    assert ann.get(f"{B}/none").status_code == 404
    assert ann.delete(f"{B}/none").status_code == 404
    assert query(ann).status_code == 404


def test_pay_per_token_endpoints_are_everybodys_to_query(ann: httpx.Client) -> None:
    listed = {e["permission_level"] for e in ann.get(B).json()["endpoints"]}
    assert listed == {"CAN_QUERY"}
    path = "/serving-endpoints/databricks-gpt-5/invocations"
    assert ann.post(path, json=QUESTION).status_code == 200
    assert ann.delete(f"{B}/databricks-gpt-5").status_code == 403


def test_every_route_of_an_endpoint_asks_for_a_permission() -> None:
    of_endpoint = [
        route
        for route in ROUTES
        if route.path.startswith("/api/2.0/serving-endpoints/") and "{name}" in route.path
    ]
    assert {needed(route) for route in of_endpoint} == {Level.CAN_VIEW, Level.CAN_MANAGE}
    assert {needed(route) for route in ROUTES if route not in of_endpoint} == {None}


@pytest.mark.parametrize(
    ("method", "path", "level"),
    [
        ("GET", "{name}", Level.CAN_VIEW),
        ("GET", "{name}/metrics", Level.CAN_VIEW),
        ("GET", "{name}/served-models/{model}/logs", Level.CAN_MANAGE),
        ("GET", "{name}/served-models/{model}/build-logs", Level.CAN_MANAGE),
        ("PUT", "{name}/ai-gateway", Level.CAN_MANAGE),
        ("POST", "{name}/config:stop", Level.CAN_MANAGE),
        ("PUT", "pt/{name}/config", Level.CAN_MANAGE),
        ("POST", "pt", None),
    ],
)
def test_route_asks_for(method: str, path: str, level: Level | None) -> None:
    route = Route(f"{B}/{path}", lambda request: None, methods=[method])
    assert needed(route) is level
