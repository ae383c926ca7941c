"""Plays a scenario step by step, in a workspace that it resets first."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx

from servemu.scenarios import expectations
from servemu.scenarios.emulator import ENDPOINTS, FAULTS, Emulator, Json
from servemu.scenarios.expectations import Finding
from servemu.scenarios.schema import ALL, ASKS, Scenario, Step

RULE_TIMES = (("when", "from"), ("when", "until"), (None, "expires_in"))
"""Fields of a rule that count on the workspace's clock."""
CAPACITY = "capacity-"
REQUEST_SECONDS = 330
"""Longer than the service's own limit."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table. A step without expectations has one, that is ok."""

    step: int
    """From 1."""
    name: str
    finding: Finding


@dataclass(frozen=True, slots=True)
class Outcome:
    rows: tuple[Row, ...]
    event_log_hash: str
    seed: int | None
    """The emulator's; None: it has none, and the hash differs from run to run."""

    @property
    def ok(self) -> bool:
        return all(row.finding.ok for row in self.rows)


@contextmanager
def connect(url: str, token: str) -> Iterator[Emulator]:
    """Raises `EmulatorGone`."""
    headers = {"Authorization": f"Bearer {token}", "User-Agent": "servemu-scenario"}
    verify = url.startswith("https")  # certificates are 50 ms to read
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
    with httpx.Client(
        base_url=url, headers=headers, timeout=REQUEST_SECONDS, limits=limits, verify=verify
    ) as client:
        yield Emulator(client)


def play(scenario: Scenario, emulator: Emulator) -> Outcome:
    """Every step, also behind one that is not met. Raises `EmulatorGone`."""
    emulator.admin("POST", "/_emulator/reset", {})
    rows = []
    for number, step in enumerate(scenario.steps, 1):
        findings = list(_step(step, emulator)) or [Finding("", "", "", True)]
        rows += [Row(number, step.title, finding) for finding in findings]
    log = emulator.admin("GET", "/_emulator/events/hash")
    return Outcome(tuple(rows), log["hash"], log["seed"])


def _step(step: Step, emulator: Emulator) -> Iterator[Finding]:
    action = step.action
    if action in ASKS:
        yield from expectations.of_answer(step.expect, emulator.ask(*_asked(step)))
    elif step.load is not None:
        yield from expectations.of_load(step.expect, emulator.play(step.load))
    elif action is not None:
        SWITCHES[action](emulator, getattr(step, action))
    yield from expectations.of_emulator(step.expect, emulator)


def _asked(step: Step) -> tuple[str, str, Json | None]:
    if step.create is not None:
        return "POST", ENDPOINTS, step.create
    if step.update is not None:
        body = {key: value for key, value in step.update.items() if key != "name"}
        return "PUT", f"{ENDPOINTS}/{step.update['name']}/config", body
    if step.request is not None:
        return step.request.method, step.request.path, step.request.body
    return "DELETE", f"{ENDPOINTS}/{step.delete}", None


def _fault(emulator: Emulator, rule: Json) -> None:
    emulator.admin("POST", FAULTS, _in_time(rule, emulator))


def _in_time(rule: Json, emulator: Emulator) -> Json:
    """Its times are divided by the speedup, those of its preset too."""
    if emulator.speedup == 1:
        return rule
    from servemu.faults.shorthand import spelt_out
    from servemu.schemas.faults import parse_rule

    spelt = spelt_out(rule)
    parsed = parse_rule(spelt)
    times = {"from": parsed.when.from_, "until": parsed.when.until}
    given = {k: _seconds(t, emulator) for k, t in times.items() if t is not None}
    scaled = {**spelt, "when": {**spelt.get("when", {}), **given}}
    if parsed.expires_in is not None:
        scaled["expires_in"] = _seconds(parsed.expires_in, emulator)
    return scaled


def _seconds(time: timedelta, emulator: Emulator) -> float:
    return time.total_seconds() / emulator.speedup


def _clear(emulator: Emulator, rule_id: str) -> None:
    emulator.admin("DELETE", FAULTS if rule_id == ALL else f"{FAULTS}/{rule_id}")


def _advance(emulator: Emulator, duration: timedelta) -> None:
    emulator.advance(duration)


def _capacity(emulator: Emulator, replicas: Mapping[str, int] | str) -> None:
    """As rules that shrink the pool, in place of those of an earlier step."""
    sizes = {} if isinstance(replicas, str) else replicas
    for rule in emulator.admin("GET", FAULTS)["faults"]:
        if rule["id"].startswith(CAPACITY):
            emulator.admin("DELETE", f"{FAULTS}/{rule['id']}")
    rules: list[dict[str, Any]] = [
        {
            "id": f"{CAPACITY}{number}",
            "effect": {"type": "shrink", "workload_type": kind, "replicas": size},
        }
        for number, (kind, size) in enumerate(sizes.items(), 1)
    ]
    emulator.admin("POST", FAULTS, {"faults": rules})


SWITCHES: Mapping[str, Callable[[Emulator, Any], None]] = {
    "fault": _fault,
    "clear": _clear,
    "advance": _advance,
    "capacity": _capacity,
}
