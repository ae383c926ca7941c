"""How often an engine whose device failed may begin again."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

_MOST = 3
_SECONDS = 60.0


@dataclass(slots=True)
class Restarts:
    """At most three in any minute: a device that fails each time is left alone for a while."""

    now: Callable[[], float]
    """Monotonic seconds."""
    _times: deque[float] = field(init=False, default_factory=deque)

    def may_begin(self) -> bool:
        """Whether one more is allowed now; it then counts."""
        now = self.now()
        while self._times and self._times[0] <= now - _SECONDS:
            self._times.popleft()
        if len(self._times) >= _MOST:
            return False
        self._times.append(now)
        return True
