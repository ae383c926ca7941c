"""Opens the database and hands out transactions."""

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import RLock

from sqlalchemy import URL, Connection, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.pool import NullPool, StaticPool

from . import schema, sqlite
from .errors import DatabaseUnavailable, StateError
from .migrations import HISTORY, History

__all__ = ["Connection", "Database", "open_database"]

# Connection: what callers hand on from `read` and `write` to the repository functions.
__all__ = ["Connection", "Database", "open_database"]


class Database:
    """The open database. Transactions are short, and neither nested nor held across an `await`.

    SQLite gets one connection that is kept, in memory as in a file: taking one from a pool would
    be a third of the time of a read. Threads wait for each other.
    """

    def __init__(self, db: Engine, where: str) -> None:
        self._db = db
        self.where = where
        """What was opened, without passwords."""
        self._kept = sqlite.connect(db) if db.dialect.name == "sqlite" else None
        self._lock = RLock()

    def read(self) -> AbstractContextManager[Connection]:
        """A consistent snapshot, only to be read.

        Raises DatabaseUnavailable or DatabaseCorrupt, as `write` does.
        """
        return self._transaction(writing=False)

    @contextmanager
    def look(self) -> Iterator[Connection]:
        """As `read`, but allowed within a transaction of the caller's own: then it sees that one's
        changes (SQLite), or what was committed before (others).
        """
        kept = self._kept
        if kept is None:
            with self.read() as conn:
                yield conn
            return
        with self._lock:
            if sqlite.is_in_transaction(kept):
                yield kept
                return
            with self.read() as conn:
                yield conn

    def write(self) -> AbstractContextManager[Connection]:
        """A writing transaction: committed at the end, rolled back whole on any exception."""
        return self._transaction(writing=True)

    def close(self) -> None:
        """Closes all connections."""
        if self._kept is not None:
            self._kept.close()
        self._db.dispose()

    @contextmanager
    def _transaction(self, *, writing: bool) -> Iterator[Connection]:
        conn = self._kept
        with _named_failures(self.where):
            if conn is None:
                # SQLite's transactions are snapshots by nature; elsewhere it has to be asked for.
                options = {} if writing else {"isolation_level": "REPEATABLE READ"}
                with self._db.execution_options(**options).begin() as pooled:
                    yield pooled
            else:
                with self._lock, sqlite.begun(conn, writing=writing):
                    yield conn


def open_database(where: str, *, history: History = HISTORY) -> Database:
    """Opens a path, ":memory:" or a SQLAlchemy URL, and brings its schema to the head.

    Raises DatabaseUnavailable, DatabaseCorrupt, DatabaseTooNew or MigrationFailed; what cannot be
    opened is left as it was. `history` is for the tests of migrations.
    """
    url = _url(where)
    shown = where if "://" not in where else url.render_as_string(hide_password=True)
    path = _file(url)
    if path is not None:
        sqlite.check_file(shown, path)
    db = _engine(url, shown)
    try:
        with _named_failures(shown):
            _prepare(db, shown, path, history)
    except BaseException:
        db.dispose()
        raise
    return Database(db, shown)


def _prepare(db: Engine, where: str, path: Path | None, history: History) -> None:
    if path is not None and path.exists():
        found = _look(path, where, history)
    else:
        with db.connect() as conn:
            found = schema.revision(conn, where)
            schema.check(found, where, history)
    if found != history.head:
        schema.bring_to_head(db, where, history)


def _look(path: Path, where: str, history: History) -> str | None:
    """The revision of a SQLite file, which is opened such that nothing can change it."""
    db = create_engine(
        "sqlite://", creator=lambda: sqlite.connect_read_only(path), poolclass=NullPool
    )
    with db.connect() as conn:
        sqlite.check_pages(where, conn)
        found = schema.revision(conn, where)
        schema.check(found, where, history)
        return found


@contextmanager
def _named_failures(where: str) -> Iterator[None]:
    """Turns the driver's errors about the database (not about a statement) into ours."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        named: StateError | None = sqlite.failure(where, cause)
        if isinstance(error, OperationalError) and not isinstance(cause, sqlite3.Error):
            named = DatabaseUnavailable(where, str(cause))
        if named is None:
            raise
        raise named from error


def _url(where: str) -> URL:
    if where == ":memory:":
        return URL.create("sqlite")
    if "://" not in where:
        return URL.create("sqlite", database=str(Path(where).expanduser()))
    try:
        return make_url(where)
    except ArgumentError as error:
        raise DatabaseUnavailable("URL", "it is not of the form driver://…") from error


def _file(url: URL) -> Path | None:
    """The file of a SQLite URL; None for memory, other databases and SQLite's own `file:` URIs."""
    name = url.database
    if url.get_backend_name() != "sqlite" or not name or name == ":memory:":
        return None
    return None if name.startswith("file:") else Path(name)


def _engine(url: URL, where: str) -> Engine:
    try:
        if url.get_backend_name() == "sqlite":
            db = create_engine(url, poolclass=StaticPool, connect_args=sqlite.CONNECT_ARGS)
        else:
            db = create_engine(url, pool_pre_ping=True)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise DatabaseUnavailable(where, f"its driver is not installed ({error})") from error
    if db.dialect.is_async:
        raise DatabaseUnavailable(where, "its driver is asynchronous; name a synchronous one")
    if db.dialect.name == "sqlite":
        sqlite.listen(db)
    return db
