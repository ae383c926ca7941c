"""What comes first to whom, while clocks of workspaces are moved."""

from dataclasses import replace

import pytest

from servemu.clock import PausedClock
from servemu.lifecycle.agenda import Agenda
from servemu.workspace import Workspaces
from servemu_state.database import open_database
from servemu_state.records import ConfigUpdate, Deployment, Endpoint

NOW = 1_000.0


@pytest.fixture
def workspaces() -> Workspaces:
    return Workspaces(open_database(":memory:"), PausedClock(NOW))


def endpoint(name: str, due_at: float | None, workspace: str = "a") -> Endpoint:
    deployment = Deployment(
        config_version=1, entities=(), routes=(), started_at=NOW, stage=0, due_at=due_at
    )
    return Endpoint(
        id=f"id-{name}",
        workspace=workspace,
        name=name,
        creator="me@example.com",
        created_at=NOW,
        updated_at=NOW,
        config_update=ConfigUpdate.IN_PROGRESS,
        pending=deployment,
    )


def first(agenda: Agenda) -> tuple[str, float] | None:
    due = agenda.first()
    return None if due is None else (due.endpoint.name, due.at)


def test_moving_a_clock_brings_its_workspace_forward(workspaces: Workspaces) -> None:
    agenda = Agenda(workspaces, [endpoint("soon", NOW + 10), endpoint("later", NOW + 30, "b")])
    assert first(agenda) == ("soon", NOW + 10)
    workspaces.advance("b", 25)
    assert first(agenda) == ("later", NOW + 5)


def test_a_new_time_replaces_the_old(workspaces: Workspaces) -> None:
    agenda = Agenda(workspaces, [endpoint("x", NOW + 10), endpoint("y", NOW + 20)])
    assert agenda.put(endpoint("x", NOW + 30))
    assert first(agenda) == ("y", NOW + 20)
    agenda.drop("a", "id-y")
    assert first(agenda) == ("x", NOW + 30)


def test_nothing_to_come_leaves_the_agenda_empty(workspaces: Workspaces) -> None:
    agenda = Agenda(workspaces, [endpoint("x", NOW + 10)])
    assert agenda.put(endpoint("x", None))
    assert first(agenda) is None
    assert not agenda.put(endpoint("x", None))


def test_what_was_set_aside_comes_back_as_it_is_now(workspaces: Workspaces) -> None:
    agenda = Agenda(workspaces, [endpoint("x", NOW + 10), endpoint("y", NOW + 20)])
    due = agenda.first()
    assert due is not None
    agenda.set_aside(due)
    agenda.put(replace(endpoint("x", NOW + 10), tags=(("k", "v"),)))
    assert first(agenda) == ("y", NOW + 20)
    assert agenda.of("a", "id-x", "pending") is not None
    agenda.bring_back("a", "id-x")
    back = agenda.first()
    assert back is not None
    assert (back.endpoint.tags, back.at) == ((("k", "v"),), NOW + 10)


def test_those_due_at_the_same_time_come_in_the_order_in_which_they_came(
    workspaces: Workspaces,
) -> None:
    agenda = Agenda(workspaces, [])
    for name in ("z", "m", "a"):
        agenda.put(endpoint(name, NOW + 10))
    agenda.put(endpoint("z", NOW + 5))
    agenda.put(endpoint("z", NOW + 10))
    order = []
    while (due := agenda.first()) is not None:
        order.append(due.endpoint.name)
        agenda.drop("a", due.endpoint.id)
    assert order == ["z", "m", "a"]
