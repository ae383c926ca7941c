"""What happens to endpoints by itself, and when: in order, however many there are."""

import heapq
from collections.abc import Iterable, Set
from dataclasses import dataclass
from itertools import count
from typing import Literal

from servemu.workspace import Workspaces
from servemu_state.records import Endpoint

Role = Literal["pending", "active"]
ROLES: tuple[Role, Role] = ("pending", "active")
Entry = tuple[float, int, str, Role]
"""When, on the workspace's clock; the endpoint's place in the order of coming; its id."""
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


class Agenda:
    """Endpoints with something to come. A queue for each workspace, on the workspace's clock: so
    moving that clock reorders nothing. Entries that no longer hold go when they come first.
    """

    def __init__(self, workspaces: Workspaces, endpoints: Iterable[Endpoint]) -> None:
        self._workspaces = workspaces
        self._endpoints: dict[str, Endpoint] = {}
        self._places: dict[str, int] = {}
        """By id: who came first is first among those due at the same time."""
        self._queues: dict[str, list[Entry]] = {}
        self._count = count()
        for endpoint in endpoints:
            self.put(endpoint)

    def put(self, endpoint: Endpoint) -> bool:
        """Its record is now this one. False: nothing was, and nothing is to come."""
        before = self._endpoints.pop(endpoint.id, None)
        times = [_due_at(endpoint, role) for role in ROLES]
        if any(at is not None for at in times):
            self._endpoints[endpoint.id] = endpoint
            self._places.setdefault(endpoint.id, next(self._count))
            for role, at in zip(ROLES, times, strict=True):
                if at is not None and (before is None or _due_at(before, role) != at):
                    self._push(endpoint, role, at)
        else:
            self._places.pop(endpoint.id, None)
        return before is not None or endpoint.id in self._endpoints

    def drop(self, endpoint_id: str) -> None:
        """The endpoint is gone; one that is not here is fine."""
        self._endpoints.pop(endpoint_id, None)
        self._places.pop(endpoint_id, None)

    def drop_all(self, endpoint_ids: Set[str]) -> None:
        """They are gone."""
        for endpoint_id in self._endpoints.keys() & endpoint_ids:
            self.drop(endpoint_id)

    def of(self, endpoint_id: str, role: Role) -> Due | None:
        """What is to come to one deployment, also if it was set aside."""
        endpoint = self._endpoints.get(endpoint_id)
        at = None if endpoint is None else _due_at(endpoint, role)
        if endpoint is None or at is None:
            return None
        return Due(self._workspaces.real_time(endpoint.workspace, at), endpoint, role)

    def first(self) -> Due | None:
        """The earliest of all workspaces; None: nothing is to come."""
        firsts = [due for name in list(self._queues) if (due := self._first_of(name)) is not None]
        return min(firsts, key=lambda due: due.at, default=None)

    def set_aside(self, due: Due) -> None:
        """`first` names it no more, until its time changes or `bring_back` is called.

        `due`: what `first` said last.
        """
        heapq.heappop(self._queues[due.endpoint.workspace])

    def bring_back(self, endpoint_id: str) -> None:
        """What was set aside of this endpoint, if it still holds."""
        endpoint = self._endpoints.get(endpoint_id)
        for role in ROLES:
            if endpoint is not None and (at := _due_at(endpoint, role)) is not None:
                self._push(endpoint, role, at)

    def _push(self, endpoint: Endpoint, role: Role, at: float) -> None:
        queue = self._queues.setdefault(endpoint.workspace, [])
        heapq.heappush(queue, (at, self._places[endpoint.id], endpoint.id, role))

    def _first_of(self, workspace: str) -> Due | None:
        queue = self._queues[workspace]
        while queue:
            at, _, endpoint_id, role = queue[0]
            endpoint = self._endpoints.get(endpoint_id)
            if endpoint is not None and _due_at(endpoint, role) == at:
                return self.of(endpoint_id, role)
            heapq.heappop(queue)
        del self._queues[workspace]
        return None


def _due_at(endpoint: Endpoint, role: Role) -> float | None:
    deployment = endpoint.pending if role == "pending" else endpoint.active
    return None if deployment is None else deployment.due_at
