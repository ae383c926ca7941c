"""Workspaces: isolated worlds, each with its own endpoints, faults and clock."""

import hashlib
from dataclasses import replace

from servemu.clock import Clock
from servemu_state import workspaces
from servemu_state.database import Database
from servemu_state.records import Workspace


class Workspaces:
    """The workspaces of this process, made on first use, and their clocks."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        with db.read() as connection:
            self._known = {record.name: record for record in workspaces.list_all(connection)}

    def open(self, name: str) -> Workspace:
        """The workspace of this name, stored when it is new."""
        record = self._known.get(name)
        if record is None:
            record = Workspace(name=name, created_at=self._clock.now())
            with self._db.write() as connection:
                workspaces.insert_if_absent(connection, record)
            self._known[name] = record
        return record

    def now(self, name: str) -> float:
        """Seconds since the epoch, on this workspace's clock."""
        return self._clock.now() + self.open(name).clock_offset

    def clock_offset(self, name: str) -> float:
        """Seconds that its clock is ahead of the machine's. Stores nothing, not even a new one."""
        record = self._known.get(name)
        return 0.0 if record is None else record.clock_offset

    def real_time(self, name: str, at: float) -> float:
        """When the clock of the machine will show what this workspace calls `at`."""
        return at - self.open(name).clock_offset

    def advance(self, name: str, seconds: float) -> Workspace:
        """Move this workspace's clock forward, for good."""
        record = self.open(name)
        record = replace(record, clock_offset=record.clock_offset + seconds)
        with self._db.write() as connection:
            workspaces.save(connection, record)
        self._known[name] = record
        return record

    def at_first(self, name: str) -> Workspace:
        """The workspace as if it were made now. Not stored: see `put`."""
        generation = self.open(name).generation + 1
        return Workspace(name=name, created_at=self._clock.now(), generation=generation)

    def put(self, record: Workspace) -> None:
        """What was stored of it by somebody else's transaction."""
        self._known[record.name] = record


def org_id(workspace: str) -> str:
    """The numeric id that clients read from `X-Databricks-Org-Id`: stable, 16 digits."""
    digest = hashlib.blake2b(workspace.encode(), digest_size=8).digest()
    return str(10**15 + int.from_bytes(digest) % (9 * 10**15))
