"""One operation of a control plane, measured with one client and with eight."""

from dataclasses import dataclass, replace

from tests.bench.load import Load, Measured, measure

CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class Case:
    """One operation, asked by one client and by eight."""

    name: str
    endpoints: int | None
    alone: Measured
    together: Measured


def measured(name: str, endpoints: int | None, load: Load) -> Case:
    """First one connection, then eight."""
    alone = measure(replace(load, connections=1))
    together = measure(replace(load, connections=CONNECTIONS, first=alone.next))
    return Case(name, endpoints, alone, together)
