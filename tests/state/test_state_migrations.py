"""The chain of migrations gives the tables of `models`, and a failing one leaves nothing."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from servemu_state import endpoints, models
from servemu_state.database import Database, open_database
from servemu_state.errors import DatabaseUnavailable, MigrationFailed
from servemu_state.migrations import HEAD, HISTORY, History
from servemu_state.records import Endpoint

MakeEndpoint = Callable[..., Endpoint]

NEXT = '''
"""A revision after the head."""

import sqlalchemy as sa
from alembic import op

revision = "next"
down_revision = "{head}"


def upgrade() -> None:
    with op.batch_alter_table("endpoints", recreate="always") as table:
        table.add_column(sa.Column("note", sa.Text))
    {then}
'''


@pytest.fixture
def make_history(tmp_path: Path) -> Callable[[str], History]:
    """Makes a history with one more revision, which alters the endpoints and does `then`."""

    def make(then: str) -> History:
        scripts = tmp_path / "100% scripts"
        shutil.copytree(HISTORY.scripts, scripts)
        (scripts / "versions" / "next.py").write_text(NEXT.format(head=HEAD, then=then))
        return History("next", scripts)

    return make


@pytest.fixture
def old(tmp_path: Path, make_endpoint: MakeEndpoint) -> Path:
    """A database at today's head, holding one endpoint."""
    path = tmp_path / "a.db"
    database = open_database(str(path))
    with database.write() as conn:
        endpoints.insert(conn, make_endpoint("llama"))
    database.close()
    return path


def migrated_from_nothing(where: str) -> Database:
    """A database whose tables were all made by the migrations."""
    database = open_database(where)
    with database.write() as conn:
        models.metadata.drop_all(conn)
        conn.exec_driver_sql("DELETE FROM alembic_version")
    database.close()
    return open_database(where)


def shape(database: Database) -> dict[str, object]:
    """Columns, keys, constraints and indexes of all tables, as the inspector sees them."""
    with database.read() as conn:
        seen = inspect(conn)
        return {
            table: (
                [{**column, "type": str(column["type"])} for column in seen.get_columns(table)],
                seen.get_pk_constraint(table),
                seen.get_foreign_keys(table),
                seen.get_unique_constraints(table),
                seen.get_indexes(table),
            )
            for table in seen.get_table_names()
        }


def test_head_is_the_newest_revision() -> None:
    assert ScriptDirectory(str(HISTORY.scripts)).get_heads() == [HEAD]


def test_created_and_migrated_tables_are_the_same(tmp_path: Path) -> None:
    created = open_database(str(tmp_path / "created.db"))
    migrated = migrated_from_nothing(str(tmp_path / "migrated.db"))
    assert shape(created) == shape(migrated)
    assert len(shape(created)) == len(models.metadata.tables) + 1
    with created.read() as one, migrated.read() as other:
        revision = "SELECT version_num FROM alembic_version"
        assert one.exec_driver_sql(revision).scalars().all() == [HEAD]
        assert other.exec_driver_sql(revision).scalars().all() == [HEAD]
    created.close()
    migrated.close()


def test_alembic_finds_nothing_to_migrate(tmp_path: Path) -> None:
    migrated = migrated_from_nothing(str(tmp_path / "migrated.db"))
    with migrated.read() as conn:
        context = MigrationContext.configure(
            conn, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, models.metadata) == []
    migrated.close()


def test_older_database_is_upgraded_with_all_it_holds(
    old: Path, make_history: Callable[[str], History], make_endpoint: MakeEndpoint
) -> None:
    database = open_database(str(old), history=make_history("pass"))
    with database.read() as conn:
        assert endpoints.list_all(conn, "default") == [make_endpoint("llama")]
        columns = [column["name"] for column in inspect(conn).get_columns("endpoints")]
        assert columns[-1] == "note"
        assert conn.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1
    database.close()


@pytest.mark.parametrize(
    "then",
    ['op.execute("SELECT nothing FROM nowhere")', 'op.execute("DELETE FROM endpoints")'],
    ids=["a statement fails", "deployments lose their endpoint"],
)
def test_failing_migration_leaves_nothing(
    old: Path, make_history: Callable[[str], History], make_endpoint: MakeEndpoint, then: str
) -> None:
    before = old.read_bytes()
    with pytest.raises(MigrationFailed, match=f"upgraded from schema revision {HEAD}: ") as raised:
        open_database(str(old), history=make_history(then))
    assert str(old) in str(raised.value)
    assert old.read_bytes() == before
    database = open_database(str(old))
    with database.read() as conn:
        assert endpoints.list_all(conn, "default") == [make_endpoint("llama")]
    database.close()


def test_migration_that_cannot_write_is_refused(
    old: Path, make_history: Callable[[str], History]
) -> None:
    where = f"sqlite:///file:{old}?mode=ro&uri=true"
    with pytest.raises((DatabaseUnavailable, MigrationFailed), match="read-?only"):
        open_database(where, history=make_history("pass"))
