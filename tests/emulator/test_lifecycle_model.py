"""Random walks over one workspace, held against a tiny model of facts/control_plane §3."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from servemu.testing import Emulator

Connect = Callable[..., httpx.Client]
Entity = Callable[..., dict[str, Any]]

B = "/api/2.0/serving-endpoints"
UP = 1.5
"""Seconds of the workspace's clock that an 8B takes."""
ABORTS = 29.0
"""… after which a deployment without capacity gives up."""
IDLE = 30.0
"""… after which nobody asked for long enough."""
QUESTION = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
NAMES = st.sampled_from(["a", "b"])
PRESETS = {"create": "no-gpu-capacity", "update": "no-gpu-capacity-on-update"}


@dataclass
class Expected:
    """One endpoint as the table has it."""

    version: int = 0
    active: int | None = None
    pending: int | None = None
    update: str = "NOT_UPDATING"
    due: float = 0.0
    fails: bool = False
    stopped: bool = False
    idle_at: float | None = None
    """When it is looked at next; None: not up, or asleep."""
    asked_at: float = -IDLE

    def deploy(self, now: float, fails: bool) -> None:
        self.version += 1
        self.pending, self.update = self.version, "IN_PROGRESS"
        self.fails, self.due = fails, now + (ABORTS if fails else UP)

    def settle(self, now: float) -> None:
        if self.update == "IN_PROGRESS" and now >= self.due:
            if self.fails:
                self.update = "UPDATE_FAILED"
            else:
                self.active, self.pending, self.update = self.pending, None, "NOT_UPDATING"
                self.stopped, self.idle_at = False, now + IDLE
        while self.idle_at is not None and now >= self.idle_at:
            is_asked = self.asked_at + IDLE > self.idle_at
            self.idle_at = self.asked_at + IDLE if is_asked else None

    def stop(self) -> None:
        self.stopped, self.idle_at = True, None
        self.pending, self.update = None, "NOT_UPDATING"

    @property
    def ready(self) -> bool:
        return self.active is not None and not self.stopped

    @property
    def suspended(self) -> bool:
        return self.stopped and self.update != "IN_PROGRESS"

    @property
    def asleep(self) -> bool:
        return self.ready and self.idle_at is None

    def outline(self) -> dict[str, object]:
        message = "Stopped" if self.stopped else "Scaled to zero" if self.asleep else ""
        return {
            "ready": "READY" if self.ready else "NOT_READY",
            "config_update": self.update,
            "suspend": "STOPPED" if self.suspended else "NOT_SUSPENDED",
            "config": self.active,
            "pending_config": self.pending,
            "message": None if self.active is None else message,
        }


def outline(endpoint: dict[str, Any]) -> dict[str, object]:
    versions = {
        key: endpoint[key]["config_version"] if key in endpoint else None
        for key in ("config", "pending_config")
    }
    states = [served["state"] for served in endpoint.get("config", {}).get("served_entities", ())]
    message = states[0]["deployment_state_message"] if states else None
    return {**endpoint["state"], **versions, "message": message}


@dataclass
class Walk:
    """What all steps of one walk share."""

    client: httpx.Client
    config: dict[str, Any]
    now: float = 0.0
    endpoints: dict[str, Expected] = field(default_factory=dict)
    armed: dict[str, int] = field(default_factory=lambda: {"create": 0, "update": 0})

    def draws_fault(self, kind: str) -> bool:
        if not self.armed[kind]:
            return False
        self.armed[kind] -= 1
        return True


class Machine(RuleBasedStateMachine):
    """Create, update, stop, start, ask, delete, advance, fault, in any order."""

    def __init__(self, walk: Walk) -> None:
        super().__init__()
        self.walk = walk

    @rule(name=NAMES, bare=st.booleans())
    def create(self, name: str, bare: bool) -> None:
        walk = self.walk
        body = {"name": name} | ({} if bare else {"config": walk.config})
        status = walk.client.post(B, json=body).status_code
        if name in walk.endpoints:
            assert status == 409
            return
        assert status == 200
        walk.endpoints[name] = Expected()
        if not bare:
            walk.endpoints[name].deploy(walk.now, walk.draws_fault("create"))

    @rule(name=NAMES)
    def update(self, name: str) -> None:
        walk = self.walk
        status = walk.client.put(f"{B}/{name}/config", json=walk.config).status_code
        endpoint = walk.endpoints.get(name)
        if endpoint is None:
            assert status == 404
        elif endpoint.update == "IN_PROGRESS":
            assert status == 409
        else:
            assert status == 200
            endpoint.deploy(walk.now, walk.draws_fault("update"))

    @rule(name=NAMES)
    def stop(self, name: str) -> None:
        status = self.walk.client.post(f"{B}/{name}/config:stop").status_code
        endpoint = self.walk.endpoints.get(name)
        if endpoint is None:
            assert status == 404
        elif endpoint.update == "IN_PROGRESS":
            assert status == 409
        elif endpoint.active is None:
            assert status == 400
        else:
            assert status == 200
            if not endpoint.suspended:
                endpoint.stop()

    @rule(name=NAMES)
    def start(self, name: str) -> None:
        walk = self.walk
        status = walk.client.post(f"{B}/{name}/config:start").status_code
        endpoint = walk.endpoints.get(name)
        if endpoint is None:
            assert status == 404
        elif endpoint.update == "IN_PROGRESS":
            assert status == 409
        elif not endpoint.stopped:
            assert status == 400
        else:
            assert status == 200
            endpoint.deploy(walk.now, walk.draws_fault("update"))

    @rule(name=NAMES)
    def ask(self, name: str) -> None:
        """But for those that sleep: there it would wait for the clock."""
        endpoint = self.walk.endpoints.get(name)
        if endpoint is not None and endpoint.asleep:
            return
        path = f"/serving-endpoints/{name}/invocations"
        status = self.walk.client.post(path, json=QUESTION).status_code
        if endpoint is not None and endpoint.suspended:
            assert status == 400
        elif endpoint is None or not endpoint.ready:
            assert status == 404
        else:
            assert status == 200
            endpoint.asked_at = self.walk.now

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        known = self.walk.endpoints.pop(name, None) is not None
        status = self.walk.client.delete(f"{B}/{name}").status_code
        assert status == (200 if known else 404)

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, UP, ABORTS, IDLE]))
    def advance(self, seconds: float) -> None:
        self.walk.now += seconds
        self.walk.client.post("/_emulator/clock/advance", json={"seconds": seconds})
        for endpoint in self.walk.endpoints.values():
            endpoint.settle(self.walk.now)

    @precondition(lambda self: sum(self.walk.armed.values()) < 2)
    @rule(kind=st.sampled_from(["create", "update"]))
    def fault(self, kind: str) -> None:
        self.walk.armed[kind] += 1
        body = {"preset": PRESETS[kind], "when": {"times": 1}}
        assert self.walk.client.post("/_emulator/faults", json=body).status_code == 200

    @invariant()
    def every_endpoint_is_as_the_table_says(self) -> None:
        for name, expected in self.walk.endpoints.items():
            assert outline(self.walk.client.get(f"{B}/{name}").json()) == expected.outline()

    def teardown(self) -> None:
        self.walk.client.close()


def test_any_order_of_changes_follows_the_state_table(
    emulator: Emulator, connect: Connect, entity: Entity
) -> None:
    sizes = {"min_provisioned_throughput": None, "max_provisioned_throughput": None}
    sleeper = entity(**sizes, scale_to_zero_enabled=True)

    class Walker(Machine):
        def __init__(self) -> None:
            super().__init__(Walk(connect(emulator.url), {"served_entities": [sleeper]}))

    run_state_machine_as_test(
        Walker,
        settings=settings(
            max_examples=25,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
