"""What can go wrong with the state.

StateError
├── DatabaseUnavailable   cannot be opened, read or written now
├── DatabaseCorrupt       is not a servemu database, or is a damaged one
├── DatabaseTooNew        was written by a newer servemu
├── MigrationFailed       an older database could not be brought up to date
├── EndpointExists, FaultExists, ReplyExists, ModelExists
└── EndpointGone, WorkspaceGone, ModelGone
"""


class StateError(Exception):
    """Any failure of the state."""


class DatabaseUnavailable(StateError):
    """The database `where` cannot be used now; `why` says what to do."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"Cannot use the database {where}: {why}")
        self.where = where


class DatabaseCorrupt(StateError):
    """`where` is damaged or holds something else; it was left as it is."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(
            f"The database {where} {why}. It was left as it is: restore a copy of it, "
            "move it away, or name another file with --database."
        )
        self.where = where


class DatabaseTooNew(StateError):
    """`where` has a schema revision that this program does not know."""

    def __init__(self, where: str, found: str, head: str) -> None:
        super().__init__(
            f"The database {where} has schema revision {found}, which this servemu (up to {head}) "
            "does not know. Nothing was changed: upgrade servemu, or name another file "
            "with --database."
        )
        self.where = where
        self.found = found


class MigrationFailed(StateError):
    """Upgrading `where` failed and was rolled back whole."""

    def __init__(self, where: str, found: str, why: str) -> None:
        super().__init__(
            f"The database {where} could not be upgraded from schema revision {found}: {why}. "
            "Nothing was changed: keep the older servemu, or name another file with --database."
        )
        self.where = where


class EndpointExists(StateError):
    """The workspace already has an endpoint with this name."""

    def __init__(self, workspace: str, name: str) -> None:
        super().__init__(f"Workspace {workspace!r} already has an endpoint named {name!r}.")
        self.workspace = workspace
        self.name = name


class EndpointGone(StateError):
    """No endpoint has this id (any more)."""

    def __init__(self, endpoint_id: str) -> None:
        super().__init__(f"No endpoint has the id {endpoint_id!r}.")
        self.endpoint_id = endpoint_id


class FaultExists(StateError):
    """The workspace already has a fault rule with this id."""

    def __init__(self, workspace: str, id: str) -> None:
        super().__init__(f"Workspace {workspace!r} already has a fault rule {id!r}.")
        self.workspace = workspace
        self.id = id


class ReplyExists(StateError):
    """The workspace already has a scripted reply with this id."""

    def __init__(self, workspace: str, id: str) -> None:
        super().__init__(f"Workspace {workspace!r} already has a scripted reply {id!r}.")
        self.workspace = workspace
        self.id = id


class WorkspaceGone(StateError):
    """No workspace has this name (any more)."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no workspace named {name!r}.")
        self.name = name


class ModelExists(StateError):
    def __init__(self, workspace: str, name: str) -> None:
        super().__init__(f"Model {name!r} already exists in workspace {workspace!r}.")


class ModelGone(StateError):
    def __init__(self, workspace: str, name: str) -> None:
        super().__init__(f"Model {name!r} is no longer in workspace {workspace!r}.")
