"""The single writer of endpoint state: each call is one transaction from one record to the next."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from servemu.errors import EndpointExists, EndpointNotFound
from servemu.faults.ledger import Faults
from servemu.faults.rules import Occasion
from servemu.lifecycle import transitions
from servemu.lifecycle.timeline import CREATING, MESSAGES, NO_CAPACITY, Timeline
from servemu.lifecycle.transitions import Config, Failure
from servemu.workspace import Workspaces
from servemu_state import endpoints, events
from servemu_state.database import Connection, Database
from servemu_state.records import ConfigUpdate, Endpoint, EntityState, Event


@dataclass(frozen=True, slots=True)
class Call:
    """The request behind a change: what fault rules look at."""

    workspace: str
    operation: str
    request_id: str
    headers: Mapping[str, str]
    """Lower-case names."""


class Deployments:
    """Endpoints of all workspaces: reads, accepts changes, moves deployments on."""

    def __init__(
        self, db: Database, workspaces: Workspaces, faults: Faults, timeline: Timeline
    ) -> None:
        self._db = db
        self._workspaces = workspaces
        self._faults = faults
        self._timeline = timeline
        with db.read() as connection:
            updating = endpoints.list_updating(connection)
        self._due = {endpoint.id: endpoint for endpoint in updating}
        """The endpoints whose deployment is under way: what a restart resumes."""
        self.changed = asyncio.Event()
        """Set when a due time was added or taken away."""

    def get(self, workspace: str, name: str) -> Endpoint:
        """Raises `EndpointNotFound`."""
        with self._db.read() as connection:
            return _existing(connection, workspace, name)

    def list_all(self, workspace: str) -> list[Endpoint]:
        with self._db.read() as connection:
            return endpoints.list_all(connection, workspace)

    def create(self, call: Call, endpoint: Endpoint, config: Config | None) -> Endpoint:
        """Store a new endpoint, and start to deploy its config. Raises `EndpointExists`."""
        with self._db.write() as connection:
            if endpoints.get(connection, call.workspace, endpoint.name) is not None:
                raise EndpointExists(endpoint.name)
            if config is not None:
                endpoint = self._accept(connection, call, endpoint, config)
            endpoints.insert(connection, endpoint)
            _note(connection, endpoint, "Endpoint created", endpoint.created_at)
        self._track(endpoint)
        return endpoint

    def update_config(self, call: Call, name: str, config: Config) -> Endpoint:
        """Start to deploy a new config version. Raises `EndpointNotFound`, `UpdateInProgress`."""
        with self._db.write() as connection:
            endpoint = _existing(connection, call.workspace, name)
            endpoint = self._accept(connection, call, endpoint, config)
            endpoints.save(connection, endpoint)
            _note(connection, endpoint, "Endpoint update started", endpoint.updated_at)
        self._track(endpoint)
        return endpoint

    def delete(self, workspace: str, name: str) -> Endpoint:
        """Gone at once, also while an update runs (GUESS, facts/control_plane §3).

        Answers the last state. Raises `EndpointNotFound`.
        """
        with self._db.write() as connection:
            endpoint = _existing(connection, workspace, name)
            endpoints.delete(connection, endpoint.id)
        self._untrack(endpoint)
        return endpoint

    def patch_tags(
        self, workspace: str, name: str, *, add: Mapping[str, str], drop: frozenset[str]
    ) -> Endpoint:
        """Set and remove tags; those that stay keep their order. Raises `EndpointNotFound`."""
        with self._db.write() as connection:
            endpoint = _existing(connection, workspace, name)
            kept = {key: value for key, value in endpoint.tags if key not in drop}
            now = self._workspaces.now(workspace)
            endpoint = replace(endpoint, tags=tuple({**kept, **add}.items()), updated_at=now)
            endpoints.save(connection, endpoint)
        if endpoint.id in self._due:
            self._track(endpoint)
        return endpoint

    def due(self) -> list[tuple[float, Endpoint]]:
        """The deployments under way, and when the stage of each ends by the machine's clock."""
        return [due for key in self._due if (due := self.due_of(key)) is not None]

    def due_of(self, endpoint_id: str) -> tuple[float, Endpoint] | None:
        """The same of one endpoint; None once it is settled or deleted."""
        endpoint = self._due.get(endpoint_id)
        if endpoint is None:
            return None
        assert endpoint.pending is not None and endpoint.pending.due_at is not None
        due_at = self._workspaces.real_time(endpoint.workspace, endpoint.pending.due_at)
        return due_at, endpoint

    def enter_stage(self, endpoint: Endpoint, stage: int) -> None:
        """The next stage begins when the one before was due, however late anybody looked."""
        assert endpoint.pending is not None and endpoint.pending.due_at is not None
        due_at = endpoint.pending.due_at + self._timeline.seconds(endpoint.pending, stage)
        self._save(transitions.enter_stage(endpoint, stage, MESSAGES[stage], due_at))

    def succeed(self, endpoint: Endpoint) -> None:
        """The new config takes over."""
        assert endpoint.pending is not None
        now = self._workspaces.now(endpoint.workspace)
        task = self._timeline.task(endpoint.pending)
        self._save(transitions.succeed(endpoint, now, task), "Endpoint update succeeded")

    def fail(self, endpoint: Endpoint, failures: Mapping[str, Failure]) -> None:
        """The new config failed; the old one serves on."""
        now = self._workspaces.now(endpoint.workspace)
        version = endpoint.last_config_version
        self._save(
            transitions.fail(endpoint, failures, now),
            f"Endpoint update failed for endpoint {endpoint.name}, config version {version}",
        )

    def abort_for_capacity(self, endpoint: Endpoint) -> None:
        """No GPU came free in time: every entity of the new config is aborted."""
        assert endpoint.pending is not None
        failure = Failure(EntityState.ABORTED, NO_CAPACITY)
        self.fail(endpoint, {entity.name: failure for entity in endpoint.pending.entities})

    def _accept(
        self, connection: Connection, call: Call, endpoint: Endpoint, config: Config
    ) -> Endpoint:
        """Accept the config, draw its lifecycle fault, enter the first stage."""
        now = self._workspaces.now(call.workspace)
        endpoint = transitions.accept(endpoint, config, now)
        fired = self._faults.draw(
            connection,
            Occasion(
                workspace=call.workspace,
                operation=call.operation,
                endpoint=endpoint.name,
                phase="lifecycle",
                now=now,
                request_id=call.request_id,
                headers=call.headers,
            ),
        )
        pending = endpoint.pending
        assert pending is not None
        if fired is not None:
            effect = fired.rule.effect.model_dump(mode="json", exclude_none=True)
            pending = replace(pending, fault={"rule": fired.id, "effect": effect})
        due_at = now + self._timeline.seconds(pending, CREATING)
        endpoint = replace(endpoint, pending=pending)
        return transitions.enter_stage(endpoint, CREATING, MESSAGES[CREATING], due_at)

    def _save(self, endpoint: Endpoint, message: str | None = None) -> None:
        with self._db.write() as connection:
            endpoints.save(connection, endpoint)
            if message is not None:
                _note(connection, endpoint, message, endpoint.updated_at)
        if endpoint.config_update is ConfigUpdate.IN_PROGRESS:
            self._track(endpoint)
        else:
            self._untrack(endpoint)

    def _track(self, endpoint: Endpoint) -> None:
        if endpoint.config_update is ConfigUpdate.IN_PROGRESS:
            self._due[endpoint.id] = endpoint
            self.changed.set()

    def _untrack(self, endpoint: Endpoint) -> None:
        self._due.pop(endpoint.id, None)
        self.changed.set()


def _existing(connection: Connection, workspace: str, name: str) -> Endpoint:
    endpoint = endpoints.get(connection, workspace, name)
    if endpoint is None:
        raise EndpointNotFound(name)
    return endpoint


def _note(connection: Connection, endpoint: Endpoint, message: str, at: float) -> None:
    status = endpoint.config_update.value
    version = endpoint.last_config_version or None
    event = Event(endpoint.id, at, "ENDPOINT_UPDATE", status, message, version)
    events.append(connection, event)
