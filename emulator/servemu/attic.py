"""Where endpoints go that a reset takes away, until their rows are removed."""

import secrets

from servemu_state import endpoints
from servemu_state.database import Connection, Database

AT_ONCE = 50
"""Endpoints that are removed in a row: half a millisecond in which nobody is answered."""


class Attic:
    """Endpoints that are gone for everybody, until their rows are. Belongs to the event loop."""

    def __init__(self, db: Database) -> None:
        """Empties what a killed process left."""
        self._db = db
        self._keys: list[str] = []
        with db.write() as connection:
            endpoints.remove_put_away(connection)

    def take(self, connection: Connection, workspace: str) -> list[str]:
        """All endpoints of the workspace, within the caller's transaction. Answers their ids."""
        key = f"{endpoints.PUT_AWAY}{secrets.token_hex(8)}"
        ids = endpoints.put_away(connection, workspace, key)
        if ids:
            self._keys.append(key)
        return ids

    @property
    def is_empty(self) -> bool:
        """All rows are gone."""
        return not self._keys

    def empty_some(self) -> bool:
        """Remove a few rows; False once there are none."""
        while self._keys:
            with self._db.write() as connection:
                if endpoints.remove_some(connection, self._keys[0], AT_ONCE):
                    return True
            self._keys.pop(0)
        return False

    def empty(self) -> None:
        """Remove them all: ids that come again (`--seed`) must be free."""
        while self.empty_some():
            pass
