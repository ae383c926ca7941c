"""The coverage ledger: which client call reaches which route, and the test that proves it."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Covered:
    """A method of a real client that works against the emulator."""

    client: str
    method: str
    route: str
    """`METHOD /path`, as the route table has it."""
    witness: str
    """The test that calls it, as pytest names it from the top of the repository."""


@cache
def ledger() -> tuple[Covered, ...]:
    """All rows of `coverage.toml`; `tests/project/test_coverage.py` holds them to the truth."""
    text = files("servemu").joinpath("coverage.toml").read_text(encoding="utf-8")
    clients: dict[str, dict[str, dict[str, str]]] = tomllib.loads(text)
    return tuple(
        Covered(client, method, row["route"], row["witness"])
        for client, rows in clients.items()
        for method, row in rows.items()
    )
