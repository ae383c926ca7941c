"""What one workspace may ask of all its provisioned endpoints together."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from servemu.clock import Clock
from servemu.errors import RequestLimitExceeded
from servemu.throughput.allowance import Allowance, Rate

TOO_MANY = (
    "Exceeded max number of parallel requests. Please contact your Databricks representative to "
    "increase the limit"
)
"""DOC (facts/data_plane §5); its error_code is a GUESS."""

TOO_OFTEN = (
    "REQUEST_LIMIT_EXCEEDED: Exceeded workspace QPS rate limit for {endpoint}. Work with your "
    "Databricks account team to request a higher FMAPI rate limit tier."
)
"""Both parts were seen, for pay-per-token; that provisioned throughput says so is a GUESS."""


@dataclass(slots=True)
class Use:
    """Of one workspace."""

    allowance: Allowance
    in_flight: int = 0


@dataclass(slots=True)
class WorkspaceLimits:
    """Queries per second and requests at a time, for each workspace."""

    clock: Clock
    queries_per_second: float
    """DOC: 200 for provisioned throughput (facts/provisioned_throughput §3)."""
    in_flight: int
    """DOC: 4096 (facts/data_plane §5)."""
    _uses: dict[str, Use] = field(default_factory=dict)

    @contextmanager
    def taking(self, workspace: str, endpoint: str) -> Iterator[None]:
        """Inside of it a request counts. Raises `RequestLimitExceeded`; after the Retry-After of
        too many queries one more is taken. Within a second as many as the limit may come at once.
        """
        use = self._uses.get(workspace)
        if use is None:
            one_second = Rate(self.queries_per_second, burst_seconds=1.0)
            use = self._uses[workspace] = Use(Allowance([one_second]))
        if use.in_flight >= self.in_flight:
            raise RequestLimitExceeded(TOO_MANY, 1)
        now = self.clock.monotonic()
        use.allowance.idle(now)
        early = use.allowance.due(1) - now
        if early > 1e-9:  # a rounding error is no query
            message = TOO_OFTEN.format(endpoint=endpoint)
            raise RequestLimitExceeded(message, max(1, math.ceil(early)))
        use.allowance.pay(1)
        use.in_flight += 1
        try:
            yield
        finally:
            use.in_flight -= 1

    def forget(self, workspace: str) -> None:
        """The workspace is reset; what still runs is not counted any more."""
        self._uses.pop(workspace, None)
