"""The verdict: a sample client with four planted bugs over real HTTP, and the mended one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from servemu.cli.commands import app
from servemu.testing import Emulator

Json = dict[str, Any]
Advance = Callable[[float], None]
Entity = Callable[..., Json]
Connect = Callable[..., httpx.Client]

B = "/api/2.0/serving-endpoints"
FAULTS = "/_emulator/faults"
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
PLANTED = {
    "backs_off": "no_backoff",
    "looks_after_a_lost_create": "created_again_after_lost_reply",
    "reads_config_update": "looked_only_at_ready",
    "heeds_update_failed": "ignored_update_failed",
}


@dataclass(frozen=True, slots=True)
class Habits:
    """What a careful client does, and a careless one does not."""

    backs_off: bool = True
    looks_after_a_lost_create: bool = True
    reads_config_update: bool = True
    heeds_update_failed: bool = True


@dataclass(frozen=True, slots=True)
class Deployer:
    """A sample client: rolls out an endpoint and a canary, updates it, queries it, cleans up.

    `sleep` takes seconds; here it moves the workspace's clock.
    """

    http: httpx.Client
    sleep: Advance
    entity: Json
    habits: Habits

    def run(self) -> None:
        self.create("llama")
        self.wait("llama")
        self.query("llama")
        self.create("canary")
        self.wait("canary")
        self.http.delete(f"{B}/canary")
        self.update("llama")
        self.http.delete(f"{B}/llama")

    def create(self, name: str) -> None:
        body = {"name": name, "config": {"served_entities": [self.entity]}}
        while self.http.post(B, json=body).status_code >= 500:
            self.sleep(2)
            if not self.habits.looks_after_a_lost_create:
                continue
            if self.http.get(f"{B}/{name}").status_code == 200:
                return

    def wait(self, name: str) -> str:
        """Until the deployment is over, at most 60 polls."""
        for _ in range(60):
            state = self.http.get(f"{B}/{name}").json()["state"]
            if self.habits.reads_config_update:
                if state["config_update"] != "IN_PROGRESS":
                    break
            elif state["ready"] == "READY":
                break
            self.sleep(2)
        if state["config_update"] == "UPDATE_FAILED" and self.habits.reads_config_update:
            self.http.get(f"{B}/{name}/events")
        return str(state["config_update"])

    def update(self, name: str) -> None:
        new = {**self.entity, "name": "new"}
        self.http.put(f"{B}/{name}/config", json={"served_entities": [new]})
        careful = replace(self.habits, reads_config_update=True)
        for _ in range(60):
            state = self.http.get(f"{B}/{name}").json()["state"]["config_update"]
            if state != "IN_PROGRESS":
                break
            self.sleep(2)
        if state == "UPDATE_FAILED" and careful.heeds_update_failed:
            self.http.get(f"{B}/{name}/events")
            return
        self.query(name)

    def query(self, name: str) -> None:
        for attempt in range(5):
            answer = self.http.post(f"/serving-endpoints/{name}/invocations", json=CHAT)
            if answer.status_code != 429:
                return
            if self.habits.backs_off:
                self.sleep(float(answer.headers.get("Retry-After", 2**attempt)))


@pytest.fixture
def deploy(
    workspace: httpx.Client, advance: Advance, entity: Entity
) -> Callable[[Habits], list[Json]]:
    """Runs the sample client through four faults; answers the findings."""

    def deploy(habits: Habits) -> list[Json]:
        for rule in (
            {"preset": "create-lost", "match": {"endpoint": "llama"}, "when": {"times": 1}},
            {"preset": "no-gpu-capacity", "match": {"endpoint": "canary"}},
            {"preset": "no-gpu-capacity-on-update", "match": {"endpoint": "llama"}},
            {
                "match": {"operation": "invocations"},
                "when": {"times": 2},
                "phase": "request",
                "effect": {"type": "status", "status": 429},
            },
        ):
            answer = workspace.post(FAULTS, json={**rule, "must_fire": True})
            assert answer.status_code == 200, answer.text
        Deployer(workspace, advance, entity(), habits).run()
        findings: list[Json] = workspace.get("/_emulator/verdict").json()["findings"]
        return findings

    return deploy


def codes(findings: list[Json]) -> set[str]:
    return {finding["code"] for finding in findings}


def test_mended_client_has_no_findings(deploy: Callable[[Habits], list[Json]]) -> None:
    assert deploy(Habits()) == []


@pytest.mark.parametrize("habit", PLANTED)
def test_each_planted_bug_is_found_alone(
    deploy: Callable[[Habits], list[Json]], habit: str
) -> None:
    findings = deploy(replace(Habits(), **{habit: False}))
    assert codes(findings) == {PLANTED[habit]}


def test_all_four_planted_bugs_are_found_and_name_their_requests(
    deploy: Callable[[Habits], list[Json]], workspace: httpx.Client
) -> None:
    findings = deploy(Habits(False, False, False, False))
    assert codes(findings) == set(PLANTED.values())
    known = {e["request_id"] for e in workspace.get("/_emulator/requests").json()["requests"]}
    for finding in findings:
        assert finding["grade"] == "error"
        assert finding["advice"]
        assert finding["requests"]
        assert known.issuperset(finding["requests"])


def test_sdk_that_waits_and_cleans_up_passes(
    emulator: Emulator, workspace: httpx.Client, advance: Advance, entity: Entity
) -> None:
    """databricks-sdk, unmodified: the 503s and 429s that it retries are no finding."""
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.serving import EndpointCoreConfigInput, ServedEntityInput

    token = workspace.headers["Authorization"].removeprefix("Bearer ")
    for operation, status in (("serving-endpoints.create", 503), ("serving-endpoints.get", 429)):
        workspace.post(
            FAULTS,
            json={
                "match": {"operation": operation},
                "when": {"times": 1},
                "phase": "request",
                "effect": {"type": "status", "status": status, "retry_after": 1},
                "must_fire": True,
            },
        )
    sdk = WorkspaceClient(host=emulator.url, token=token).serving_endpoints
    config = EndpointCoreConfigInput(
        name="llama", served_entities=[ServedEntityInput.from_dict(entity())]
    )
    sdk.create("llama", config=config)
    advance(60)
    sdk.wait_get_serving_endpoint_not_updating("llama")
    sdk.delete("llama")
    verdict = workspace.get("/_emulator/verdict").json()
    assert (verdict["grade"], verdict["findings"]) == ("pass", [])


@pytest.fixture
def retried(workspace: httpx.Client, advance: Advance) -> Callable[..., list[Json]]:
    """Sends a query that fails once, waits, sends it again; answers the findings."""

    def retried(effect: Json, wait: float) -> list[Json]:
        rule = {
            "match": {"operation": "invocations"},
            "when": {"times": 1},
            "phase": "request",
            "effect": {"type": "status", **effect},
        }
        assert workspace.post(FAULTS, json=rule).status_code == 200
        path = "/serving-endpoints/databricks-meta-llama-3-3-70b-instruct/invocations"
        workspace.post(path, json=CHAT)
        advance(wait)
        workspace.post(path, json=CHAT)
        findings: list[Json] = workspace.get("/_emulator/verdict").json()["findings"]
        return findings

    return retried


@pytest.mark.parametrize(
    ("effect", "wait", "expected"),
    [
        ({"status": 429, "retry_after": 30}, 29, {"ignored_retry_after"}),
        ({"status": 429, "retry_after": 30}, 30, set()),
        ({"status": 503}, 1, set()),
        ({"status": 400, "error_code": "BAD_REQUEST"}, 1, {"retried_not_retryable"}),
        ({"status": 400, "headers": {"x-should-retry": "true"}}, 1, set()),
        ({"status": 429, "headers": {"x-should-retry": "false"}}, 9, {"retried_not_retryable"}),
        ({"status": 404}, 1, {"retried_not_retryable"}),
    ],
)
def test_retry_is_judged_by_the_answer_before_it(
    retried: Callable[..., list[Json]], effect: Json, wait: float, expected: set[str]
) -> None:
    assert codes(retried(effect, wait)) == expected


@pytest.mark.parametrize(
    ("polls", "seconds", "expected"),
    [
        (6, 0.5, {"polled_too_tightly"}),
        (5, 0.5, set()),
        (20, 1.0, set()),
        (24, 60.0, {"polled_for_ever"}),
        (20, 60.0, set()),
    ],
)
def test_polls_are_judged_by_their_gaps_and_their_end(
    workspace: httpx.Client,
    advance: Advance,
    entity: Entity,
    polls: int,
    seconds: float,
    expected: set[str],
) -> None:
    workspace.post(FAULTS, json={"preset": "no-gpu-capacity", "effect": {"after": "P9D"}})
    workspace.post(B, json={"name": "slow", "config": {"served_entities": [entity()]}})
    for _ in range(polls):
        workspace.get(f"{B}/slow")
        advance(seconds)
    workspace.delete(f"{B}/slow")
    assert codes(workspace.get("/_emulator/verdict").json()["findings"]) == expected


def test_endpoint_left_behind_is_a_note_and_after_a_lost_reply_an_error(
    workspace: httpx.Client,
) -> None:
    workspace.post(B, json={"name": "known"})
    workspace.post(FAULTS, json={"preset": "create-lost"})
    workspace.post(B, json={"name": "orphan"})
    findings = workspace.get("/_emulator/verdict").json()["findings"]
    assert [(f["code"], f["grade"], f["endpoint"]) for f in findings] == [
        ("left_orphans", "note", "known"),
        ("left_orphans", "error", "orphan"),
    ]


def test_update_that_failed_and_that_nobody_looked_at_is_ignored(
    workspace: httpx.Client, advance: Advance, create: Callable[..., Json], entity: Entity
) -> None:
    create("llama")
    advance(60)
    workspace.post(FAULTS, json={"preset": "no-gpu-capacity-on-update"})
    workspace.put(f"{B}/llama/config", json={"served_entities": [entity(name="new")]})
    advance(60)
    findings = workspace.get("/_emulator/verdict").json()["findings"]
    assert codes(findings) == {"ignored_update_failed", "left_orphans"}


def test_fault_that_was_not_met_is_named(workspace: httpx.Client) -> None:
    workspace.post(FAULTS, json={"id": "aside", "preset": "create-lost"})
    workspace.post(FAULTS, json={"id": "must", "preset": "create-lost", "must_fire": True})
    findings = workspace.get("/_emulator/verdict").json()["findings"]
    assert [(f["code"], f["grade"], f["rules"]) for f in findings] == [
        ("never_met_fault", "warning", ["aside"]),
        ("never_met_fault", "error", ["must"]),
    ]


@pytest.fixture
def command(emulator: Emulator, workspace: httpx.Client) -> Iterator[Callable[..., Any]]:
    """Runs `servemu` against the test's workspace."""
    token = workspace.headers["Authorization"].removeprefix("Bearer ")

    def command(*arguments: str) -> Any:
        line = [*arguments, "--url", emulator.url, "--token", token]
        return CliRunner().invoke(app, line, env={"COLUMNS": "200"})

    yield command


def test_command_exits_0_without_findings_and_1_with_one(
    command: Callable[..., Any], workspace: httpx.Client
) -> None:
    clean = command("verdict")
    assert clean.exit_code == 0
    assert clean.stdout.startswith("verdict: pass, 0 requests\nevent log: ")
    workspace.post(B, json={"name": "a_"})
    workspace.post(B, json={"name": "a_"})
    told = command("verdict")
    assert told.exit_code == 1
    assert "error: retried_not_retryable: POST /api/2.0/serving-endpoints was answered 400" in (
        told.stdout
    )


def test_commands_show_requests_move_the_clock_and_reset(
    command: Callable[..., Any], workspace: httpx.Client
) -> None:
    workspace.post(B, json={"name": "a"})
    shown = command("requests").stdout.splitlines()
    assert any(line.split()[:3] == ["1", "create", "a"] for line in shown)
    assert max(map(len, shown)) <= 80
    assert "advanced by  0:45:00" in command("clock", "advance", "45m").stdout
    assert "advanced by  2:15:00" in command("clock", "advance", "PT1H30M").stdout
    assert "advanced by  2:15:00" in command("clock", "show").stdout
    refused = command("clock", "advance", "soon")
    assert refused.exit_code == 2
    assert command("reset").stdout == "reset: 1 endpoints went\n"
    assert "advanced by  0:00:00" in command("clock", "show").stdout
