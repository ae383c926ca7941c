"""Tells which schema revision a database has, and brings it to the head."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Column, Connection, Engine, MetaData, String, Table, inspect, select
from sqlalchemy import PrimaryKeyConstraint as PrimaryKey
from sqlalchemy.exc import SQLAlchemyError

from . import migrations, models, sqlite
from .errors import DatabaseCorrupt, DatabaseTooNew, MigrationFailed
from .migrations import History

# As Alembic would make it (alembic/runtime/migration.py).
_VERSION = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKey("version_num", name="alembic_version_pkc"),
)


def revision(conn: Connection, where: str) -> str | None:
    """The revision of the schema, None when there are no tables yet; reads only.

    Raises DatabaseCorrupt when the tables are somebody else's.
    """
    names = inspect(conn).get_table_names()
    if not names:
        return None
    if _VERSION.name not in names:
        raise DatabaseCorrupt(where, f"holds other tables ({', '.join(sorted(names)[:5])})")
    return conn.execute(select(_VERSION.c.version_num)).scalar() or "base"


def check(found: str | None, where: str, history: History) -> None:
    """Raises DatabaseTooNew when the revision is not one of ours."""
    if found in (None, "base", history.head):
        return
    if not migrations.knows(history, found):
        raise DatabaseTooNew(where, found, history.head)


def bring_to_head(db: Engine, where: str, history: History) -> None:
    """Creates or upgrades the tables in one transaction, rolled back whole on failure.

    Raises MigrationFailed.
    """
    with db.connect() as conn, _ddl_transaction(conn):
        # Asked again under the write lock: another process may have been faster.
        found = revision(conn, where)
        if found is None:
            _create(conn, history)
        elif found != history.head:
            _upgrade(conn, where, history)


@contextmanager
def _ddl_transaction(conn: Connection) -> Iterator[None]:
    if conn.dialect.name != "sqlite":
        with conn.begin():
            yield
        return
    with sqlite.foreign_keys_off(conn), conn.begin(), sqlite.begun(conn, writing=True):
        yield


def _create(conn: Connection, history: History) -> None:
    models.metadata.create_all(conn, checkfirst=False)
    _VERSION.create(conn, checkfirst=False)
    conn.execute(_VERSION.insert(), {"version_num": history.head})


def _upgrade(conn: Connection, where: str, history: History) -> None:
    from alembic.util.exc import CommandError

    found = revision(conn, where) or "base"
    try:
        migrations.upgrade(conn, history)
    except (CommandError, SQLAlchemyError) as error:
        raise MigrationFailed(where, found, str(error).partition("\n")[0]) from error
    if conn.dialect.name == "sqlite":
        orphan = conn.exec_driver_sql("PRAGMA foreign_key_check").first()
        if orphan is not None:
            raise MigrationFailed(where, found, f"a row of {orphan[0]} lost its {orphan[2]}")
