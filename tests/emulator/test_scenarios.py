"""The shipped scenarios pass, and only because of their faults; the file format; the command."""

import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from servemu.cli.commands import app
from servemu.clock import PausedClock
from servemu.scenarios.emulator import EmulatorGone
from servemu.scenarios.files import ScenarioInvalid, parse, shipped
from servemu.scenarios.playing import Outcome, connect, play
from servemu.settings import Settings
from servemu.testing import Emulator, serve

Json = dict[str, Any]
Play = Callable[..., Outcome]

NAMES = tuple(shipped())
FAULTS = ("fault", "capacity")


@pytest.fixture(scope="module")
def at_speed_one() -> Iterator[Emulator]:
    """As `scenario run` starts it: all times are the real service's."""
    settings = Settings(engine="synthetic", speedup=1, seed=0)
    with serve(settings, PausedClock()) as running:
        yield running


@pytest.fixture
def played(at_speed_one: Emulator) -> Play:
    """Plays a scenario, in the workspace of its name."""

    def played(given: Json, name: str = "own", where: Emulator = at_speed_one) -> Outcome:
        with connect(where.url, f"emu.scenario-{name}") as emulator:
            return play(parse(given), emulator)

    return played


def given_in(name: str) -> Json:
    return tomllib.loads(shipped()[name].read_text("utf-8"))


def unmet(outcome: Outcome) -> list[tuple[int, str, str, str]]:
    findings = [(row.step, row.finding) for row in outcome.rows if not row.finding.ok]
    return [(step, found.what, found.expected, found.got) for step, found in findings]


def without_faults(given: Json) -> Json:
    """No faults, and nothing said of their ledger, which would be missed alone."""
    steps = [step for step in given["steps"] if not any(name in step for name in FAULTS)]
    for step in steps:
        step.get("expect", {}).pop("ledger", None)
    return given | {"steps": steps}


@pytest.mark.parametrize("name", NAMES)
def test_shipped_scenario_passes_and_twice_leaves_the_same_event_log(
    played: Play, name: str
) -> None:
    first = played(given_in(name), name)
    assert unmet(first) == []
    again = played(given_in(name), name)
    assert (again.event_log_hash, again.seed, unmet(again)) == (first.event_log_hash, 0, [])


@pytest.mark.parametrize("name", NAMES)
def test_shipped_scenario_fails_without_its_faults(played: Play, name: str) -> None:
    given = given_in(name)
    stripped = without_faults(given_in(name))
    assert len(stripped["steps"]) < len(given["steps"])
    outcome = played(stripped, name)
    assert unmet(outcome) != []
    assert not outcome.ok


def test_there_are_the_ten() -> None:
    assert NAMES == (
        "autoscale-lag",
        "canary-fails",
        "capacity-failure-on-create",
        "capacity-failure-on-update",
        "cold-start-storm",
        "region-out-of-gpus",
        "rolling-503s",
        "slow-then-success",
        "stuck-in-progress",
        "update-lost",
    )


@pytest.mark.parametrize("name", ["region-out-of-gpus", "rolling-503s"])
def test_durations_are_the_real_services_at_any_speed(
    played: Play, emulator: Emulator, name: str
) -> None:
    """The presets' own as well: this emulator runs at 60."""
    assert unmet(played(given_in(name), name, emulator)) == []


def test_another_step_is_another_event_log(played: Play) -> None:
    steps = [{"load": {"endpoint": "databricks-gte-large-en", "requests": n}} for n in (1, 2)]
    hashes = {played({"title": "t", "steps": [step]}).event_log_hash for step in steps}
    assert len(hashes) == 2


def test_load_that_nothing_holds_is_answered_all_the_same(played: Play) -> None:
    load = {"endpoint": "nobody", "requests": 3, "held_for": "1h"}
    step = {"load": load, "expect": {"answers": {"404": 3}, "error_codes": {"FEATURE_DISABLED": 0}}}
    assert unmet(played({"title": "t", "steps": [step]})) == []


CREATE = {
    "name": "llama",
    "config": {"served_entities": [{"name": "a", "entity_name": "no.such.model"}]},
}


@pytest.mark.parametrize(
    ("step", "found"),
    [
        ({"create": CREATE}, ("status", "200")),
        ({"delete": "llama", "expect": {"error_code": "X"}}, ("error_code", "X")),
        ({"expect": {"endpoints": {"llama": {"ready": "READY"}}}}, ("llama", "there")),
        ({"expect": {"ledger": {"x": 1}}}, ("ledger x", "1")),
        ({"expect": {"verdict": {"grade": "fail"}}}, ("verdict", "fail")),
        ({"expect": {"verdict": {"findings": ["no_backoff"]}}}, ("findings", "no_backoff")),
        (
            {"expect": {"requests": [{"operation": "invocations", "count": ">=1"}]}},
            ("requests invocations", ">=1"),
        ),
        (
            {"load": {"endpoint": "llama", "requests": 2}, "expect": {"answers": {"200": ">0"}}},
            ("answers 200", ">0"),
        ),
    ],
)
def test_unmet_expectation_says_what_and_what_was_there(
    played: Play, step: Json, found: tuple[str, str]
) -> None:
    [(number, *what, got)] = [
        one
        for one in unmet(played({"title": "t", "steps": [{"advance": "1s"}, step]}))
        if one[1] == found[0]
    ]
    assert (number, *what) == (2, *found)
    assert got != found[1]


BAD = [
    ({"steps": []}, "scenario: title: Field required"),
    ({"title": "t", "steps": []}, "scenario: steps: Tuple should have at least 1 item"),
    ({"title": "t", "steps": [{}]}, "scenario: step 1: A step does something or expects something"),
    (
        {"title": "t", "steps": [{"advance": "1m"}, {"name": "x", "advance": "soon"}]},
        "scenario: step 2 'x': advance: Input should be a valid timedelta",
    ),
    (
        {"title": "t", "steps": [{"advance": "1m", "delete": "llama"}]},
        "scenario: step 1: One action a step, got advance and delete",
    ),
    (
        {"title": "t", "steps": [{"load": {"endpoint": "a", "request": 3}}]},
        "scenario: step 1: load.request: Extra inputs are not permitted",
    ),
    (
        {"title": "t", "steps": [{"fault": {"preset": "no-gpu-capazity"}}]},
        "scenario: step 1: fault: Unknown fault preset 'no-gpu-capazity'. Known presets:",
    ),
    (
        {"title": "t", "steps": [{"fault": {"preset": "overloaded", "when": {"times": 0}}}]},
        "scenario: step 1: fault: Invalid value for field 'when.times'",
    ),
    (
        {
            "title": "t",
            "steps": [{"load": {"endpoint": "a"}, "expect": {"answers": {"200": "~3"}}}],
        },
        "scenario: step 1: expect.answers.200: Input should be as 3, '>=3', '<=3', '>3' or '<3'",
    ),
    (
        {"title": "t", "steps": [{"advance": 1, "expect": {"status": 200}}]},
        "scenario: step 1: status, error_code and message are of create, delete, request, update",
    ),
    (
        {"title": "t", "steps": [{"create": {"config": {}}}]},
        "scenario: step 1: create: The endpoint's name is missing",
    ),
]


@pytest.mark.parametrize(("given", "said"), BAD)
def test_bad_file_is_refused_by_step_and_field(given: Json, said: str) -> None:
    with pytest.raises(ScenarioInvalid) as refused:
        parse(given)
    assert str(refused.value).startswith(said)


def test_emulator_that_is_not_there(played: Play) -> None:
    with (
        pytest.raises(EmulatorGone, match="no emulator answers at http://127.0.0.1:1"),
        connect("http://127.0.0.1:1", "emu.x"),
    ):
        pass


def test_command_prints_the_table_and_the_hash_of_a_run_of_its_own() -> None:
    result = CliRunner().invoke(app, ["scenario", "run", "update-lost"], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    assert " 504 TEMPORARILY_UNAVAILABLE " in result.output
    assert "scenario: passed\nevent log: " in result.output
    assert result.output.rstrip().endswith("(seed 0)")


def test_command_fails_when_an_expectation_is_not_met(emulator: Emulator, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('title = "t"\n[[steps]]\ndelete = "llama"\n')
    command = ["scenario", "run", str(path), "--url", emulator.url, "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    shown = json.loads(result.stdout)
    [row] = shown["rows"]
    assert (shown["ok"], row["what"], row["expected"], row["ok"]) == (False, "status", "200", False)
    assert row["got"].startswith("404 RESOURCE_DOES_NOT_EXIST")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no-such", "no scenario 'no-such': neither a file nor one of autoscale-lag, "),
        ("{tmp}/bad.toml", "bad.toml: step 1: delete: Input should be a valid string"),
        ("{tmp}/torn.toml", "torn.toml: "),
    ],
)
def test_command_refuses_what_is_no_scenario(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "bad.toml").write_text('title = "t"\n[[steps]]\ndelete = 3\n')
    (tmp_path / "torn.toml").write_text("title = ")
    result = CliRunner().invoke(app, ["scenario", "run", name.format(tmp=tmp_path)])
    assert result.exit_code == 2
    assert said in result.stderr


def test_command_lists_what_comes_along() -> None:
    result = CliRunner().invoke(app, ["scenario", "list", "--json"])
    listed = json.loads(result.stdout)["scenarios"]
    assert tuple(row["name"] for row in listed) == NAMES
    assert all(row["title"] for row in listed)
