"""Ways to set fault rules: headers, tags, the config file, lists; and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.fault_rules import FAULTS, HEADER, B, status

from servemu.clock import PausedClock
from servemu.settings import load_settings
from servemu.testing import serve

Json = dict[str, Any]
Create = Callable[..., Json]
Advance = Callable[[float], None]


def test_header_hits_this_request_alone_and_beats_stored_rules(
    workspace: httpx.Client, add_fault: Callable[..., Json]
) -> None:
    add_fault(effect=status(500), when={"skip": 1})
    answer = workspace.get(B, headers={HEADER: "status=429;retry-after=2"})
    shown = (answer.status_code, answer.headers["Retry-After"], answer.headers[HEADER])
    assert shown == (429, "2", "header")
    assert [workspace.get(B).status_code for _ in range(2)] == [200, 500]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("fire", "Neither an effect nor a preset: 'fire'. Effects: "),
        ("status=abc", "'effect.status'"),
        ("status", "Missing required field: effect.status"),
        ("hang=1", "The effect 'hang' takes no value, got '1'."),
        ("cut=1;phase=request", "'phase': the effect 'cut' needs 'stream'"),
        ("delay=nan", "'effect.seconds'"),
        ("delay=1;for", "'for' is no field=value."),
        ("", "Neither an effect nor a preset: ''"),
    ],
)
def test_bad_header_is_refused_by_name(workspace: httpx.Client, text: str, named: str) -> None:
    answer = workspace.get(B, headers={HEADER: text})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    message = answer.json()["message"]
    assert message.startswith("Invalid value for header 'X-Emulator-Fault': ") and named in message


def test_header_of_a_create_fails_its_deployment(
    workspace: httpx.Client, entity: Callable[..., Json], advance: Advance
) -> None:
    body = {"name": "llama", "config": {"served_entities": [entity()]}}
    made = workspace.post(B, json=body, headers={HEADER: "no-gpu-capacity;after=PT10M"})
    assert made.headers[HEADER] == "header"
    advance(10)
    assert workspace.get(f"{B}/llama").json()["state"]["config_update"] == "UPDATE_FAILED"


def test_tag_is_a_rule_about_its_endpoint_as_long_as_both_are_there(
    workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    tags = [{"key": "emulator-fault", "value": "no-gpu-capacity"}]
    create(tags=tags)
    create("other")
    advance(29)
    state = {n: workspace.get(f"{B}/{n}").json()["state"]["ready"] for n in ("llama", "other")}
    assert state == {"llama": "NOT_READY", "other": "READY"}
    [rule] = workspace.get(FAULTS).json()["faults"]
    assert (rule["id"], rule["fired"], rule["match"]["endpoint"]) == ("tag-llama", 1, "llama")
    workspace.patch(f"{B}/other/tags", json={"add_tags": tags})
    assert len(workspace.get(FAULTS).json()["faults"]) == 2
    workspace.patch(f"{B}/other/tags", json={"delete_tags": ["emulator-fault"]})
    workspace.delete(f"{B}/llama")
    assert workspace.get(FAULTS).json() == {"faults": []}


def test_tag_can_refuse_or_lose_the_create_that_brings_it(
    workspace: httpx.Client, entity: Callable[..., Json]
) -> None:
    config = {"served_entities": [entity()]}
    seen = []
    for name, preset in (("refused", "quota-exceeded"), ("lost", "create-lost"), ("bad", "fire")):
        tags = [{"key": "emulator-fault", "value": preset}]
        body = {"name": name, "config": config, "tags": tags}
        made = workspace.post(B, json=body).status_code
        seen.append((made, workspace.get(f"{B}/{name}").status_code))
    assert seen == [(400, 404), (504, 200), (400, 404)]


def test_rules_of_the_config_file_are_in_every_workspace(
    tmp_path: Path, connect: Callable[[str], httpx.Client]
) -> None:
    file = tmp_path / "servemu.toml"
    file.write_text(
        'engine = "synthetic"\n[[faults]]\npreset = "api-slow"\neffect.seconds = 0.001\n'
    )
    with serve(load_settings(file), PausedClock()) as emulator:
        for _ in range(2):
            with connect(emulator.url) as client:
                assert client.get(B).headers[HEADER] == "config-1"
                [rule] = client.get(FAULTS).json()["faults"]
                assert (rule["id"], rule["fired"]) == ("config-1", 1)


FINE = {"id": "a", "effect": status(500)}


@pytest.mark.parametrize("wrapped", [True, False])
def test_list_of_rules_is_added_whole(workspace: httpx.Client, wrapped: bool) -> None:
    rules = [FINE, {"preset": "api-slow"}, {"preset": "api-slow"}]
    answer = workspace.post(FAULTS, json={"faults": rules} if wrapped else rules)
    assert [rule["id"] for rule in answer.json()["faults"]] == ["a", "api-slow-1", "api-slow-2"]
    assert workspace.get(FAULTS).json() == answer.json()


@pytest.mark.parametrize(
    ("second", "named"),
    [
        ({"effect": {"type": "fire"}}, "faults[1]: Invalid value for field 'effect.type'"),
        (FINE, "Invalid value for field 'faults[1].id': another rule has it"),
        ({}, "faults[1]: Missing required field: effect"),
        (3, "Invalid value for field 'faults'"),
    ],
)
def test_list_with_a_bad_rule_adds_none(
    workspace: httpx.Client, second: object, named: str
) -> None:
    answer = workspace.post(FAULTS, json=[FINE, second])
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert answer.json()["message"].startswith(named)
    assert workspace.get(FAULTS).json() == {"faults": []}
    assert workspace.get(B).status_code == 200


def test_probability_that_is_no_number_is_refused_by_name(workspace: httpx.Client) -> None:
    text = '{"preset": "api-slow", "when": {"probability": NaN}}'
    message = workspace.post(FAULTS, content=text).json()["message"]
    assert message.startswith("Invalid value for field 'when.probability': ")
