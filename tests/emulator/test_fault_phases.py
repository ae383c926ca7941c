"""Fault rules beyond deployments: what they match, when, and what is answered."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.fault_rules import ASK, FAULTS, HEADER, UP, B, status

Json = dict[str, Any]
Create = Callable[..., Json]
Advance = Callable[[float], None]


def statuses(workspace: httpx.Client, count: int, path: str = B) -> list[int]:
    return [workspace.get(path).status_code for _ in range(count)]


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ({"operation": "serving-endpoints.get"}, True),
        ({"operation": "serving-endpoints.*"}, True),
        ({"operation": "invocations|serving-endpoints.get"}, True),
        ({"operation": "serving-endpoints.list"}, False),
        ({"method": "GET"}, True),
        ({"method": "PUT"}, False),
        ({"path": "/api/2.0/*/llama"}, True),
        ({"path": "/serving-endpoints/*"}, False),
        ({"endpoint": "lla*"}, True),
        ({"endpoint": "other"}, False),
        ({"entity": "*"}, False),
        ({"stream": True}, False),
    ],
    ids=str,
)
def test_rule_matches_by_operation_method_path_and_endpoint(
    workspace: httpx.Client, create: Create, add_fault: Callable[..., Json], match: Json, hit: bool
) -> None:
    create()
    add_fault(match=match, effect=status(500))
    assert workspace.get(f"{B}/llama").status_code == (500 if hit else 200)


@pytest.mark.parametrize("path", ["/serving-endpoints/chat/completions", "permissions"])
def test_endpoint_is_known_where_only_body_or_id_tell_it(
    workspace: httpx.Client, create: Create, add_fault: Callable[..., Json], path: str
) -> None:
    endpoint_id = create()["id"]
    create("other")
    add_fault(match={"endpoint": "llama"}, effect=status(500))
    if path == "permissions":
        answer = workspace.get(f"/api/2.0/permissions/serving-endpoints/{endpoint_id}")
    else:
        answer = workspace.post(path, json={"model": "llama", **ASK})
    assert answer.status_code == 500
    assert workspace.get(f"{B}/other").status_code == 200


def test_state_of_the_endpoint_decides(
    workspace: httpx.Client, create: Create, add_fault: Callable[..., Json], advance: Advance
) -> None:
    add_fault(effect=status(503), when={"state": "IN_PROGRESS"})
    create()
    assert workspace.get(f"{B}/llama").status_code == 503
    workspace.post("/_emulator/clock/advance", json={"seconds": UP})
    assert workspace.get(f"{B}/llama").status_code == 200


def test_window_is_counted_from_the_rule_on_the_workspaces_clock(
    workspace: httpx.Client, add_fault: Callable[..., Json], advance: Advance
) -> None:
    add_fault(effect=status(500), when={"from": "PT10S", "until": "PT20S"})
    seen = []
    for _ in range(5):
        seen += statuses(workspace, 1)
        advance(5)
    assert seen == [200, 200, 500, 500, 200]


def test_delays_of_several_rules_add_up_and_one_error_wins(
    workspace: httpx.Client,
    add_fault: Callable[..., Json],
    skip_pauses: Callable[[int], list[int]],
) -> None:
    hours = skip_pauses(3600)
    for number, effect in enumerate(
        (
            {"type": "delay", "seconds": 3600},
            status(500),
            status(400),
            {"type": "delay", "seconds": 3600},
        )
    ):
        add_fault(id=f"r{number}", effect=effect)
    answer = workspace.get(B)
    assert (answer.status_code, answer.headers[HEADER]) == (500, "r0, r1, r3")
    assert hours == [2]
    fired = [rule["fired"] for rule in workspace.get(FAULTS).json()["faults"]]
    assert fired == [1, 1, 0, 1]


def test_switches_of_the_emulator_itself_never_fail(
    workspace: httpx.Client, add_fault: Callable[..., Json]
) -> None:
    add_fault(effect=status(500))
    assert workspace.get("/_emulator/clock").status_code == 200


def test_status_has_the_real_body_for_its_plane_and_names_its_rule(
    workspace: httpx.Client,
    add_fault: Callable[..., Json],
    assert_fails: Callable[[httpx.Response, int, str, str], None],
) -> None:
    add_fault(id="mine", effect=status(503, retry_after=7, headers={"x-should-retry": "false"}))
    control = workspace.get(B)
    unavailable = "The service is temporarily unavailable."
    assert_fails(control, 503, "TEMPORARILY_UNAVAILABLE", unavailable)
    shown = [control.headers[name] for name in (HEADER, "Retry-After", "x-should-retry")]
    assert shown == ["mine", "7", "false"]
    data = workspace.post("/serving-endpoints/llama/invocations", json=ASK)
    assert data.json() == {"error_code": "TEMPORARILY_UNAVAILABLE", "message": unavailable}


@pytest.mark.parametrize(
    ("body", "media_type", "text"),
    [
        ("upstream", "text/plain; charset=utf-8", "upstream"),
        ({"error": {"code": 1}}, "application/json", '{"error":{"code":1}}'),
    ],
)
def test_body_of_a_status_may_be_anything(
    workspace: httpx.Client,
    add_fault: Callable[..., Json],
    body: object,
    media_type: str,
    text: str,
) -> None:
    add_fault(effect=status(502, body=body))
    answer = workspace.get(B)
    assert (answer.headers["content-type"], answer.text) == (media_type, text)


def test_refused_write_is_not_lost_after_commit(
    workspace: httpx.Client,
    create: Create,
    add_fault: Callable[..., Json],
    entity: Callable[..., Json],
) -> None:
    create()
    rule = add_fault(preset="create-lost")
    body = {"name": "llama", "config": {"served_entities": [entity()]}}
    assert workspace.post(B, json=body).status_code == 409
    assert workspace.get(f"{FAULTS}/{rule['id']}").json()["matched"] == 0


def test_reset_in_the_middle_of_a_body_cuts_it_there(
    workspace: httpx.Client, add_fault: Callable[..., Json]
) -> None:
    add_fault(effect={"type": "reset", "after_bytes": 10})
    got = b""
    with pytest.raises(httpx.ReadError), workspace.stream("GET", B) as answer:
        for part in answer.iter_raw():
            got += part
    assert len(got) <= 10
