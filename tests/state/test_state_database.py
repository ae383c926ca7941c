"""Opening a database, its transactions, and what is refused."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from servemu_state import endpoints, workspaces
from servemu_state.database import Database, open_database
from servemu_state.errors import DatabaseCorrupt, DatabaseTooNew, DatabaseUnavailable
from servemu_state.migrations import HEAD
from servemu_state.records import Endpoint, Workspace

MakeEndpoint = Callable[..., Endpoint]
WORKSPACE = Workspace("default", created_at=1.0)


def test_what_was_written_is_there_after_reopening(
    tmp_path: Path, make_endpoint: MakeEndpoint
) -> None:
    where = str(tmp_path / "a b%20.db")
    endpoint = make_endpoint("llama")
    first = open_database(where)
    with first.write() as conn:
        endpoints.insert(conn, endpoint)
    first.close()
    second = open_database(where)
    with second.read() as conn:
        assert endpoints.list_all(conn, "default") == [endpoint]
    second.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a b%20.db"]


def test_sqlite_is_set_up_as_designed(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/a.db")
    with database.read() as conn:
        found = {
            name: conn.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
        }
    database.close()
    assert found == {
        "journal_mode": "wal",
        "foreign_keys": 1,
        "synchronous": 1,
        "busy_timeout": 5000,
    }


@pytest.mark.parametrize("where", [":memory:", "a.db"])
def test_exception_rolls_the_whole_transaction_back(tmp_path: Path, where: str) -> None:
    database = open_database(where if where == ":memory:" else str(tmp_path / where))
    with pytest.raises(ZeroDivisionError), database.write() as conn:
        conn.exec_driver_sql("CREATE TABLE later (id INTEGER)")
        workspaces.insert_if_absent(conn, WORKSPACE)
        raise ZeroDivisionError
    with database.read() as conn:
        assert workspaces.list_all(conn) == []
        tables = conn.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")
        assert "later" not in set(tables.scalars())
    database.close()


def test_reader_of_another_process_keeps_its_snapshot(tmp_path: Path) -> None:
    ours, theirs = (open_database(str(tmp_path / "a.db")) for _ in range(2))
    with ours.read() as reading:
        assert workspaces.list_all(reading) == []
        with theirs.write() as writing:
            workspaces.insert_if_absent(writing, WORKSPACE)
        assert workspaces.list_all(reading) == []
    with ours.read() as reading:
        assert workspaces.list_all(reading) == [WORKSPACE]
    ours.close()
    theirs.close()


def test_writing_in_a_reading_transaction_fails_and_changes_nothing(database: Database) -> None:
    with pytest.raises(AssertionError, match="a write in a reading"), database.read() as conn:
        workspaces.insert_if_absent(conn, WORKSPACE)
    with database.read() as conn:
        assert workspaces.list_all(conn) == []


def test_transactions_do_not_nest(database: Database) -> None:
    with pytest.raises(AssertionError, match="within"), database.write(), database.read():
        pass
    with database.write() as conn:
        assert workspaces.insert_if_absent(conn, WORKSPACE)


def test_database_is_used_in_another_thread_than_it_was_opened_in(tmp_path: Path) -> None:
    database = open_database(str(tmp_path / "a.db"))
    found: list[Workspace] = []

    def use() -> None:
        with database.write() as conn:
            workspaces.insert_if_absent(conn, WORKSPACE)
            found.extend(workspaces.list_all(conn))

    thread = Thread(target=use)
    thread.start()
    thread.join()
    database.close()
    assert found == [WORKSPACE]


def test_full_disk_is_named_and_loses_nothing(tmp_path: Path, make_endpoint: MakeEndpoint) -> None:
    where = str(tmp_path / "a.db")
    database = open_database(where)
    kept = make_endpoint("kept")
    with database.write() as conn:
        endpoints.insert(conn, kept)
        pages = conn.exec_driver_sql("PRAGMA page_count").scalar_one()
        conn.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    big = make_endpoint("big", settings={"description": "x" * 100_000})
    full = pytest.raises(DatabaseUnavailable, match="the disk is full; free some space")
    with full as raised, database.write() as conn:
        endpoints.insert(conn, big)
    assert where in str(raised.value)
    with database.read() as conn:
        assert endpoints.list_all(conn, "default") == [kept]
    database.close()


def test_missing_folder_is_named(tmp_path: Path) -> None:
    where = str(tmp_path / "nowhere" / "a.db")
    with pytest.raises(DatabaseUnavailable) as raised:
        open_database(where)
    assert str(raised.value) == (
        f"Cannot use the database {where}: the folder {tmp_path}/nowhere does not exist; create it"
    )
    assert list(tmp_path.iterdir()) == []


def test_folder_is_not_a_database(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="it is a folder; name a file"):
        open_database(str(tmp_path))


def test_read_only_database_refuses_to_be_written(tmp_path: Path) -> None:
    open_database(str(tmp_path / "a.db")).close()
    # By SQLite's own means: the tests may run as root, whom file permissions do not stop.
    where = f"sqlite:///file:{tmp_path}/a.db?mode=ro&uri=true"
    database = open_database(where)
    read_only = pytest.raises(DatabaseUnavailable, match="it is read-only; make the file and its")
    with read_only, database.write() as conn:
        workspaces.insert_if_absent(conn, WORKSPACE)
    database.close()


def test_file_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    where = f"sqlite:///file:{tmp_path}/none.db?mode=ro&uri=true"
    with pytest.raises(DatabaseUnavailable, match="cannot be opened or created; check its folder"):
        open_database(where)
    assert list(tmp_path.iterdir()) == []


def test_busy_database_is_named(tmp_path: Path) -> None:
    where = f"sqlite:///{tmp_path}/a.db"
    ours, theirs = open_database(where), open_database(where)
    with ours.read() as conn:
        conn.exec_driver_sql("PRAGMA busy_timeout = 0")
    busy = pytest.raises(DatabaseUnavailable, match="another process is writing to it")
    with theirs.write(), busy, ours.write():
        pass
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    "content", [b"hello, I am your thesis\n", b"SQLite format 3\0" + b"\x5a" * 5000]
)
def test_file_that_is_no_database_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "thesis.db"
    path.write_bytes(content)
    with pytest.raises(DatabaseCorrupt, match="It was left as it is: restore a copy") as raised:
        open_database(str(path))
    assert str(path) in str(raised.value)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_database_is_left_as_it_is(tmp_path: Path, make_endpoint: MakeEndpoint) -> None:
    path = tmp_path / "a.db"
    database = open_database(str(path))
    with database.write() as conn:
        for n in range(50):
            endpoints.insert(conn, make_endpoint(f"llama-{n}"))
    database.close()
    content = bytearray(path.read_bytes())
    content[-8192:] = b"\x5a" * 8192
    path.write_bytes(content)
    with pytest.raises(DatabaseCorrupt, match="is damaged"):
        open_database(str(path))
    assert path.read_bytes() == content


def test_database_of_another_program_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('CREATE TABLE mine (id)')",
            str(path),
        ],
        check=True,
    )
    content = path.read_bytes()
    with pytest.raises(DatabaseCorrupt, match=r"holds other tables \(mine\)"):
        open_database(str(path))
    assert path.read_bytes() == content


def test_newer_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    database = open_database(str(path))
    with database.write() as conn:
        conn.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    content = path.read_bytes()
    with pytest.raises(DatabaseTooNew) as raised:
        open_database(str(path))
    assert str(raised.value) == (
        f"The database {path} has schema revision 9999, which this servemu (up to {HEAD}) does "
        "not know. Nothing was changed: upgrade servemu, or name another file with --database."
    )
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("nonsense://user:secret@host/x", "its driver is not installed"),
        ("sqlite+aiosqlite:///x.db", "driver is (asynchronous|not installed)"),
        ("://", "it is not of the form"),
    ],
)
def test_unusable_url_is_named_without_its_password(where: str, why: str) -> None:
    with pytest.raises(DatabaseUnavailable, match=why) as raised:
        open_database(where)
    assert "secret" not in str(raised.value)


def test_opening_imports_neither_alembic_nor_the_orm(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from servemu_state.database import open_database\n"
        "for _ in range(2):\n"
        "    open_database(sys.argv[1]).close()\n"
        "sys.exit(str(sorted({'alembic', 'sqlalchemy.orm'} & set(sys.modules))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.db")], capture_output=True, text=True
    )
    assert done.stderr == "[]\n"
