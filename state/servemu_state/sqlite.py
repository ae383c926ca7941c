"""What is SQLite's own: pragmas, explicit transactions, a look at a file before it is touched."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event

from .errors import DatabaseCorrupt, DatabaseUnavailable, StateError

_HEADER = b"SQLite format 3\0"
_BUSY_TIMEOUT = 5.0
"""Seconds that a writer waits for another process."""

_ADVICE = {
    sqlite3.SQLITE_BUSY: "another process is writing to it; is a second servemu running on it?",
    sqlite3.SQLITE_LOCKED: "it is locked; is a second servemu running on it?",
    sqlite3.SQLITE_READONLY: "it is read-only; make the file and its folder writable",
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_IOERR: "the disk failed to read or write",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened or created; check its folder's permissions",
}
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

CONNECT_ARGS: dict[str, Any] = {
    # Python's own BEGIN comes too late for DDL: a failed migration would not be rolled back.
    "isolation_level": None,
    "timeout": _BUSY_TIMEOUT,
    # Opened in one thread, used in another; never in two at a time.
    "check_same_thread": False,
}


def listen(db: Engine) -> None:
    """Sets every new connection up."""
    event.listen(db, "connect", _set_up)


def connect(db: Engine) -> Connection:
    """A connection whose transactions are those of `begun`, and none of SQLAlchemy's."""
    return db.connect().execution_options(isolation_level="AUTOCOMMIT")


def check_file(where: str, path: Path) -> None:
    """Raises DatabaseUnavailable or DatabaseCorrupt for what must not be opened; changes nothing.

    A path at which nothing is yet passes, when its folder is there.
    """
    if not path.parent.is_dir():
        raise DatabaseUnavailable(where, f"the folder {path.parent} does not exist; create it")
    if path.is_dir():
        raise DatabaseUnavailable(where, "it is a folder; name a file")
    try:
        with path.open("rb") as file:
            start = file.read(len(_HEADER))
    except FileNotFoundError:
        return
    except OSError as error:
        raise DatabaseUnavailable(where, f"it cannot be read ({error.strerror})") from error
    if start and start != _HEADER:
        raise DatabaseCorrupt(where, "is not a SQLite database")


def connect_read_only(path: Path) -> sqlite3.Connection:
    """A connection that cannot change the file, not even by replaying its log."""
    path = path.resolve()
    # Without a log there is nothing but the file to read, and a mere `ro` would create a log.
    mode = "mode=ro" if Path(f"{path}-wal").exists() else "mode=ro&immutable=1"
    uri = f"{path.as_uri()}?{mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_BUSY_TIMEOUT)


def check_pages(where: str, conn: Connection) -> None:
    """Raises DatabaseCorrupt when a page of the file is damaged."""
    finding = conn.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if finding != "ok":
        raise DatabaseCorrupt(where, f"is damaged ({finding})")


@contextmanager
def begun(conn: Connection, *, writing: bool) -> Iterator[None]:
    """A transaction of SQLite's own, committed at the end, or rolled back on any exception.

    By hand: SQLAlchemy's begins nothing at the driver, and takes longer than a short read does.
    """
    connection = _driver_connection(conn)
    assert not connection.in_transaction, "a transaction within a transaction"
    # At once, not at the first write: a later upgrade of the lock can fail in mid-transaction.
    connection.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
    changes = connection.total_changes
    try:
        yield
        # `PRAGMA query_only` would say so too, but setting it unprepares all statements (170 µs).
        assert writing or connection.total_changes == changes, "a write in a reading transaction"
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()  # nothing, where SQLite has done so itself (a full disk)
        raise


def is_in_transaction(conn: Connection) -> bool:
    """Whether one was begun on it; of this thread, where the caller holds the connection's lock."""
    return _driver_connection(conn).in_transaction


@contextmanager
def foreign_keys_off(conn: Connection) -> Iterator[None]:
    """No cascades meanwhile: Alembic drops and renames tables, whose rows' children must stay.

    To be entered outside of a transaction, where alone SQLite heeds the pragma.
    """
    connection = _driver_connection(conn)
    connection.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        connection.execute("PRAGMA foreign_keys=ON")


def failure(where: str, error: BaseException | None) -> StateError | None:
    """The error of ours that says what sqlite3's means; None when it is not about the database."""
    if not isinstance(error, sqlite3.DatabaseError):
        return None
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _CORRUPT:
        return DatabaseCorrupt(where, f"is damaged or not a SQLite database ({error})")
    if code in _ADVICE:
        return DatabaseUnavailable(where, f"{_ADVICE[code]} ({error})")
    return None


def _set_up(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA foreign_keys=ON")


def _driver_connection(conn: Connection) -> sqlite3.Connection:
    connection = conn.connection.driver_connection
    assert isinstance(connection, sqlite3.Connection)
    return connection
