"""What happens to endpoints by itself, and when: in order, however many there are."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from servemu.workspace import Workspaces
from servemu_state.records import Endpoint

Role = Literal["pending", "active"]
ROLES: tuple[Role, Role] = ("pending", "active")
Entry = tuple[float, int, str, Role]
"""When, on the workspace's clock; the endpoint's place in the order of coming; its id."""
Key = tuple[str, str]
"""An endpoint's workspace and id."""
Moment = tuple[str, float]
"""A workspace, and seconds since the epoch on its clock."""


@dataclass(frozen=True, slots=True)
class Due:
    """Something that happens to one of an endpoint's two deployments."""

    at: float
    """Seconds since the epoch, on the machine's clock."""
    endpoint: Endpoint
    role: Role

    @property
    def at_workspace(self) -> float:
        """The same on the workspace's clock."""
        at = _due_at(self.endpoint, self.role)
        assert at is not None
        return at


@dataclass(slots=True)
class ToCome:
    """Of one workspace."""

    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    """By id: those with something to come."""
    places: dict[str, int] = field(default_factory=dict)
    """By id: who came first is first among those due at the same time."""
    queue: list[Entry] = field(default_factory=list)
    count: int = 0

    def enter(self, endpoint: Endpoint) -> None:
        """Its record is now this one; it keeps its place."""
        if endpoint.id not in self.places:
            self.places[endpoint.id] = self.count = self.count + 1
        self.endpoints[endpoint.id] = endpoint

    def drop(self, endpoint_id: str) -> None:
        """Nothing is to come to it; one that is not here is fine."""
        self.endpoints.pop(endpoint_id, None)
        self.places.pop(endpoint_id, None)

    def push(self, endpoint_id: str, role: Role, at: float) -> None:
        heapq.heappush(self.queue, (at, self.places[endpoint_id], endpoint_id, role))


class Agenda:
    """Endpoints with something to come. A queue for each workspace, on the workspace's clock: so
    moving that clock reorders nothing. Entries that no longer hold go when they come first.
    """

    def __init__(self, workspaces: Workspaces, endpoints: Iterable[Endpoint]) -> None:
        self._workspaces = workspaces
        self._of: dict[str, ToCome] = {}
        for endpoint in endpoints:
            self.put(endpoint)

    def put(self, endpoint: Endpoint) -> bool:
        """Its record is now this one. False: nothing was, and nothing is to come."""
        to_come = self._of.setdefault(endpoint.workspace, ToCome())
        before = to_come.endpoints.get(endpoint.id)
        times = [_due_at(endpoint, role) for role in ROLES]
        if all(at is None for at in times):
            to_come.drop(endpoint.id)
            return before is not None
        to_come.enter(endpoint)
        for role, at in zip(ROLES, times, strict=True):
            if at is not None and (before is None or _due_at(before, role) != at):
                to_come.push(endpoint.id, role, at)
        return True

    def drop(self, workspace: str, endpoint_id: str) -> None:
        """The endpoint is gone; one that is not here is fine."""
        if workspace in self._of:
            self._of[workspace].drop(endpoint_id)

    def clear(self, workspace: str) -> None:
        """All endpoints of the workspace are gone."""
        self._of.pop(workspace, None)

    def of(self, workspace: str, endpoint_id: str, role: Role) -> Due | None:
        """What is to come to one deployment, also if it was set aside."""
        to_come = self._of.get(workspace)
        endpoint = None if to_come is None else to_come.endpoints.get(endpoint_id)
        at = None if endpoint is None else _due_at(endpoint, role)
        if endpoint is None or at is None:
            return None
        return Due(self._workspaces.real_time(workspace, at), endpoint, role)

    def first(self) -> Due | None:
        """The earliest of all workspaces; None: nothing is to come."""
        firsts = [due for name in list(self._of) if (due := self._first_of(name)) is not None]
        return min(firsts, key=lambda due: due.at, default=None)

    def set_aside(self, due: Due) -> None:
        """`first` names it no more, until its time changes or `bring_back` is called.

        `due`: what `first` said last.
        """
        heapq.heappop(self._of[due.endpoint.workspace].queue)

    def bring_back(self, workspace: str, endpoint_id: str) -> None:
        """What was set aside of this endpoint, if it still holds."""
        for role in ROLES:
            due = self.of(workspace, endpoint_id, role)
            if due is not None:
                self._of[workspace].push(endpoint_id, role, due.at_workspace)

    def _first_of(self, workspace: str) -> Due | None:
        to_come = self._of[workspace]
        while to_come.queue:
            at, _, endpoint_id, role = to_come.queue[0]
            endpoint = to_come.endpoints.get(endpoint_id)
            if endpoint is not None and _due_at(endpoint, role) == at:
                return self.of(workspace, endpoint_id, role)
            heapq.heappop(to_come.queue)
        if not to_come.endpoints:
            del self._of[workspace]
        return None


def _due_at(endpoint: Endpoint, role: Role) -> float | None:
    deployment = endpoint.pending if role == "pending" else endpoint.active
    return None if deployment is None else deployment.due_at


def key_of(endpoint: Endpoint) -> Key:
    """Its workspace and id."""
    return endpoint.workspace, endpoint.id
