"""The request behind a change of an endpoint."""

from collections.abc import Mapping
from dataclasses import dataclass

from servemu.faults.exposure import Exposure


@dataclass(frozen=True, slots=True)
class Call:
    """The request behind a change: what fault rules look at."""

    workspace: str
    operation: str
    request_id: str
    headers: Mapping[str, str]
    """Lower-case names."""
    exposure: Exposure | None = None
    """Of a request that some fault rule may concern."""
