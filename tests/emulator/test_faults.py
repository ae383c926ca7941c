"""Fault rules over the API: what they match, when they hit, what a client sees, what is refused."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from servemu.faults.presets import presets as named_failures
from servemu.faults.rules import draw

Json = dict[str, Any]
Create = Callable[..., Json]
Get = Callable[..., Json]
Advance = Callable[[float], None]
Entity = Callable[..., Json]
Arm = Callable[..., Json]

B = "/api/2.0/serving-endpoints"
FAULTS = "/_emulator/faults"
NO_CAPACITY = (
    "Served entity creation aborted because the resource did not become available in time."
)
UP = 1.5
ABORTS = 29.0
"""Seconds of a workspace's clock: the 29 real minutes of facts/control_plane §3, divided by 60."""


@pytest.fixture
def arm(workspace: httpx.Client) -> Arm:
    """Adds a rule, by default of the preset for creates; answers it as it was stored."""

    def arm(**fields: object) -> Json:
        answer = workspace.post(FAULTS, json={"preset": "no-gpu-capacity", **fields})
        assert answer.status_code == 200, answer.text
        body: Json = answer.json()
        return body

    return arm


@pytest.fixture
def fates(create: Create, advance: Advance, get: Get) -> Callable[..., list[str]]:
    """Creates endpoints of these names in turn; answers what became of each."""

    def fates(*names: str) -> list[str]:
        for name in names:
            create(name)
        advance(ABORTS)
        return [get(name)["state"]["config_update"] for name in names]

    return fates


GOOD, BAD = "NOT_UPDATING", "UPDATE_FAILED"


def test_failed_create_is_not_ready_and_keeps_its_pending_config(
    create: Create, advance: Advance, get: Get, arm: Arm
) -> None:
    arm()
    created = create()
    advance(ABORTS - 0.25)
    assert get() == created
    advance(0.25)
    aborted = {"deployment": "DEPLOYMENT_ABORTED", "deployment_state_message": NO_CAPACITY}
    pending = created["pending_config"]
    for kind in ("served_entities", "served_models"):
        pending[kind][0]["state"] = aborted
    assert get() == created | {
        "last_updated_timestamp": created["creation_timestamp"] + 29_000,
        "state": {
            "ready": "NOT_READY",
            "config_update": "UPDATE_FAILED",
            "suspend": "NOT_SUSPENDED",
        },
        "pending_config": pending,
    }


def test_failed_update_keeps_old_config_serving_and_the_failed_one_pending(
    workspace: httpx.Client, create: Create, advance: Advance, get: Get, arm: Arm, entity: Entity
) -> None:
    arm(preset="no-gpu-capacity-on-update")
    create()
    advance(UP)
    before = get()
    workspace.put(f"{B}/llama/config", json={"served_entities": [entity(name="new")]})
    advance(ABORTS)
    after = get()
    pending = after.pop("pending_config")
    assert after == before | {
        "last_updated_timestamp": before["creation_timestamp"] + 30_000,
        "state": {"ready": "READY", "config_update": "UPDATE_FAILED", "suspend": "NOT_SUSPENDED"},
    }
    assert pending["config_version"] == 2
    [served] = pending["served_entities"]
    assert served["name"] == "new"
    assert served["state"] == {
        "deployment": "DEPLOYMENT_ABORTED",
        "deployment_state_message": NO_CAPACITY,
    }


def test_all_entities_are_aborted_without_capacity(
    workspace: httpx.Client, entity: Entity, advance: Advance, get: Get, arm: Arm
) -> None:
    arm()
    routes = [{"served_entity_name": "a", "traffic_percentage": 100}]
    config = {
        "served_entities": [entity(name="a"), entity(name="b")],
        "traffic_config": {"routes": routes},
    }
    workspace.post(B, json={"name": "llama", "config": config})
    advance(ABORTS)
    states = [served["state"] for served in get()["pending_config"]["served_entities"]]
    assert [state["deployment"] for state in states] == ["DEPLOYMENT_ABORTED"] * 2


def test_preset_for_creates_spares_updates(
    workspace: httpx.Client, create: Create, advance: Advance, get: Get, arm: Arm, entity: Entity
) -> None:
    create()
    advance(UP)
    arm()
    workspace.put(f"{B}/llama/config", json={"served_entities": [entity()]})
    advance(UP)
    assert get()["config"]["config_version"] == 2


def test_preset_for_updates_spares_creates(arm: Arm, fates: Callable[..., list[str]]) -> None:
    arm(preset="no-gpu-capacity-on-update")
    assert fates("a") == [GOOD]


def test_rule_without_operation_hits_creates_and_updates(
    workspace: httpx.Client, create: Create, advance: Advance, get: Get, entity: Entity
) -> None:
    rule = {"effect": {"type": "no_capacity"}, "when": {"skip": 1}}
    assert workspace.post(FAULTS, json=rule).status_code == 200
    create()
    advance(UP)
    workspace.put(f"{B}/llama/config", json={"served_entities": [entity()]})
    advance(ABORTS)
    assert get()["state"]["config_update"] == BAD


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({}, [BAD, BAD, BAD]),
        ({"times": 1}, [BAD, GOOD, GOOD]),
        ({"skip": 1}, [GOOD, BAD, BAD]),
        ({"skip": 1, "times": 1}, [GOOD, BAD, GOOD]),
        ({"skip": 3}, [GOOD, GOOD, GOOD]),
        ({"probability": 0}, [GOOD, GOOD, GOOD]),
        ({"probability": 1}, [BAD, BAD, BAD]),
    ],
    ids=str,
)
def test_when_chooses_among_the_matching_requests(
    arm: Arm, fates: Callable[..., list[str]], when: Json, expected: list[str]
) -> None:
    arm(when=when)
    assert fates("a", "b", "c") == expected


@pytest.mark.parametrize(
    ("glob", "hit"),
    [
        ("*", "abc"),
        ("llama-a", "a"),
        ("llama-?", "abc"),
        ("llama", ""),
        ("*-[ab]", "ab"),
        ("*-[!ab]", "c"),
        ("LLAMA-*", ""),
    ],
)
def test_endpoint_glob_chooses_by_name(
    arm: Arm, fates: Callable[..., list[str]], glob: str, hit: str
) -> None:
    arm(match={"endpoint": glob})
    expected = [BAD if letter in hit else GOOD for letter in "abc"]
    assert fates("llama-a", "llama-b", "llama-c") == expected


def test_header_chooses_by_name_in_any_case_and_exact_value(
    workspace: httpx.Client, create: Create, advance: Advance, get: Get, arm: Arm
) -> None:
    arm(match={"header": {"X-Case": "a1"}})
    for name, value in (("other", "a2"), ("same", "a1"), ("none", None)):
        workspace.headers = httpx.Headers(
            {"Authorization": workspace.headers["Authorization"]}
            | ({} if value is None else {"x-CASE": value})
        )
        create(name)
    advance(ABORTS)
    names = ("other", "same", "none")
    assert [get(name)["state"]["config_update"] for name in names] == [GOOD, BAD, GOOD]


def test_rule_expires_on_the_clock_of_the_workspace(
    create: Create, advance: Advance, get: Get, arm: Arm
) -> None:
    arm(expires_in="PT5M")
    advance(299)
    create("in-time")
    advance(1)
    create("late")
    advance(ABORTS)
    fates = [get(name)["state"]["config_update"] for name in ("in-time", "late")]
    assert fates == [BAD, GOOD]


@pytest.mark.parametrize("after", ["PT10M", 600])
def test_after_says_how_long_a_deployment_waits_in_real_time(
    create: Create, advance: Advance, get: Get, arm: Arm, after: object
) -> None:
    assert arm(effect={"after": after})["effect"] == {"type": "no_capacity", "after": "PT600S"}
    create()
    advance(9.75)
    assert get()["state"]["config_update"] == "IN_PROGRESS"
    advance(0.25)
    assert get()["state"]["config_update"] == BAD


def test_removed_rule_still_fails_the_deployment_that_drew_it(
    workspace: httpx.Client, create: Create, advance: Advance, get: Get, arm: Arm
) -> None:
    rule = arm()
    create("drawn")
    assert workspace.delete(f"{FAULTS}/{rule['id']}").json() == {}
    create("spared")
    advance(ABORTS)
    fates = [get(name)["state"]["config_update"] for name in ("drawn", "spared")]
    assert fates == [BAD, GOOD]


def test_refused_requests_draw_no_fault(
    workspace: httpx.Client, create: Create, arm: Arm, entity: Entity
) -> None:
    create()
    rule = arm()
    config = {"served_entities": [entity()]}
    assert workspace.post(B, json={"name": "llama", "config": config}).status_code == 409
    assert workspace.post(B, json={"name": "-", "config": config}).status_code == 400
    assert workspace.post(B, json={"name": "bare"}).status_code == 200
    assert workspace.get(f"{FAULTS}/{rule['id']}").json() == rule


def test_stored_rule_is_answered_with_its_defaults_and_an_empty_ledger(arm: Arm) -> None:
    rule = arm(id="mine", when={"times": 2}, expires_in="PT1H", must_fire=True)
    assert rule == {
        "id": "mine",
        "preset": "no-gpu-capacity",
        "match": {"operation": "serving-endpoints.create*", "endpoint": "*", "header": {}},
        "when": {"skip": 0, "times": 2, "probability": 1.0, "seed": 0},
        "phase": "lifecycle",
        "effect": {"type": "no_capacity"},
        "expires_in": "PT3600S",
        "must_fire": True,
        "matched": 0,
        "fired": 0,
        "remaining": 2,
        "last_request_id": None,
    }


def test_fields_of_a_rule_win_over_those_of_its_preset_one_by_one(arm: Arm) -> None:
    rule = arm(match={"endpoint": "llama-*"}, effect={"after": 60})
    assert rule["match"] == {
        "operation": "serving-endpoints.create*",
        "endpoint": "llama-*",
        "header": {},
    }
    assert rule["effect"] == {"type": "no_capacity", "after": "PT60S"}


def test_ledger_counts_matches_and_hits(workspace: httpx.Client, entity: Entity, arm: Arm) -> None:
    rule = arm(when={"skip": 1, "times": 2}, match={"endpoint": "llama-*"})
    ledger = []
    for name in ("llama-1", "llama-2", "other", "llama-3", "llama-4"):
        body = {"name": name, "config": {"served_entities": [entity()]}}
        request_id = workspace.post(B, json=body).headers["x-request-id"]
        shown = workspace.get(f"{FAULTS}/{rule['id']}").json()
        is_last = shown["last_request_id"] == request_id
        ledger.append((shown["matched"], shown["fired"], shown["remaining"], is_last))
    assert ledger == [
        (1, 0, 2, True),
        (2, 1, 1, True),
        (2, 1, 1, False),
        (3, 2, 0, True),
        (4, 2, 0, True),
    ]


def test_first_rule_that_hits_wins_and_those_behind_it_are_not_asked(
    workspace: httpx.Client, create: Create, arm: Arm
) -> None:
    for name, when in (("skips", {"skip": 1}), ("hits", {"times": 1}), ("behind", {})):
        arm(id=name, when=when)
    create()
    rules = workspace.get(FAULTS).json()["faults"]
    assert [(rule["id"], rule["matched"], rule["fired"]) for rule in rules] == [
        ("skips", 1, 0),
        ("hits", 1, 1),
        ("behind", 0, 0),
    ]


def test_rules_are_listed_in_order_and_cleared_together(workspace: httpx.Client, arm: Arm) -> None:
    rules = [arm(id=name) for name in ("b", "c", "a")]
    assert workspace.get(FAULTS).json() == {"faults": rules}
    assert workspace.delete(FAULTS).json() == {}
    assert workspace.get(FAULTS).json() == {"faults": []}


def test_every_preset_is_shown_with_what_it_does_and_can_be_added(
    workspace: httpx.Client, arm: Arm
) -> None:
    presets = workspace.get("/_emulator/presets").json()["presets"]
    assert [preset["name"] for preset in presets] == list(named_failures())
    for preset in presets:
        rule = arm(preset=preset["name"])
        assert preset["shows"] and preset["rule"].get("match", {}).items() <= rule["match"].items()


def draws(workspace: httpx.Client, create: Create, rule_id: str, count: int = 16) -> list[int]:
    """Creates and deletes endpoints: 1 for each that the rule hit."""
    fired = [0]
    for _ in range(count):
        create()
        workspace.delete(f"{B}/llama")
        fired.append(workspace.get(f"{FAULTS}/{rule_id}").json()["fired"])
    return [after - before for before, after in zip(fired, fired[1:], strict=False)]


def test_draws_repeat_with_the_seed_and_do_not_depend_on_other_rules(
    workspace: httpx.Client, create: Create, arm: Arm
) -> None:
    chance = {"probability": 0.5, "seed": 7}
    arm(id="chance", when=chance)
    first = draws(workspace, create, "chance")
    workspace.delete(FAULTS)
    arm(id="before", when={"probability": 0})
    arm(id="chance", when=chance)
    arm(id="after", when={"probability": 0.5})
    assert draws(workspace, create, "chance") == first
    assert 0 < sum(first) < 16


def test_draw_is_a_fixed_fraction_of_its_four_arguments() -> None:
    base = (7, "chance", "default", 0)
    assert draw(*base) == draw(*base)
    others = [(8, *base[1:]), (7, "c", *base[2:]), (7, "chance", "d", 0), (*base[:3], 1)]
    assert len({draw(*base), *(draw(*other) for other in others)}) == 5
    thousand = [draw(7, "chance", "default", ordinal) for ordinal in range(1000)]
    assert all(0 <= drawn < 1 for drawn in thousand)
    assert 450 < sum(drawn < 0.5 for drawn in thousand) < 550


def test_second_rule_of_an_id_is_refused_and_the_first_stays(
    workspace: httpx.Client, arm: Arm
) -> None:
    first = arm(id="mine")
    again = workspace.post(FAULTS, json={"id": "mine", "preset": "no-gpu-capacity-on-update"})
    assert (again.status_code, again.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert again.json()["message"].startswith("Invalid value for field 'id': another rule has it")
    assert workspace.get(FAULTS).json() == {"faults": [first]}
