"""What a reset leaves over, until it is removed: rows of endpoints, files of models."""

from collections.abc import Callable, Iterable

from servemu_state import endpoints, generations
from servemu_state.database import Database
from servemu_state.records import Workspace

AT_ONCE = 50
"""Endpoints that are removed in a row: half a millisecond in which nobody is answered."""


class Attic:
    """Endpoints that are gone for everybody, until their rows are. Belongs to the event loop."""

    def __init__(self, db: Database, forget_files: Callable[[str], None]) -> None:
        """Empties what a killed process left. `forget_files`: of a registered model, by its id."""
        self._db = db
        self._forget_files = forget_files
        self._keys: list[str] = []
        self._models: list[str] = []
        with db.write() as connection:
            endpoints.remove_outdated(connection)

    def take(self, generation: Workspace, models: Iterable[str]) -> None:
        """The endpoints of a workspace's generation that is over, and its registered models."""
        self._keys.append(generations.key_of(generation))
        self._models.extend(models)

    @property
    def is_empty(self) -> bool:
        """All rows and files are gone."""
        return not self._keys and not self._models

    def empty_some(self) -> bool:
        """Remove a few; False once there are none."""
        if self._models:
            self._forget_files(self._models.pop())
            return True
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
