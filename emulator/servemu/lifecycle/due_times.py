"""Times that things are due at, on the clocks of their workspaces, the earliest first."""

import heapq
from collections.abc import Callable

Key = tuple[str, str]
"""An endpoint's id, the name of its served entity."""


class DueTimes:
    """At most one time a key. A queue for each workspace, so moving its clock reorders nothing."""

    def __init__(self, real_time: Callable[[str, float], float]) -> None:
        """`real_time`: from a workspace's time to the machine's."""
        self._real_time = real_time
        self._times: dict[Key, float] = {}
        self._queues: dict[str, list[tuple[float, Key]]] = {}

    def put(self, workspace: str, key: Key, at: float | None) -> None:
        """None: nothing is due any more."""
        if at is None:
            self._times.pop(key, None)
        elif self._times.get(key) != at:
            self._times[key] = at
            heapq.heappush(self._queues.setdefault(workspace, []), (at, key))

    def of(self, key: Key) -> float | None:
        """When it is due, on its workspace's clock."""
        return self._times.get(key)

    def first(self) -> tuple[float, Key] | None:
        """The earliest of all workspaces, on the machine's clock."""
        firsts = [one for name in list(self._queues) if (one := self._first_of(name)) is not None]
        return min(firsts, default=None)

    def _first_of(self, workspace: str) -> tuple[float, Key] | None:
        queue = self._queues[workspace]
        while queue:
            at, key = queue[0]
            if self._times.get(key) == at:
                return self._real_time(workspace, at), key
            heapq.heappop(queue)
        del self._queues[workspace]
        return None
