"""Registered models and their versions outlive the process."""

from dataclasses import replace

import pytest

from servemu_state import registered_models as repository
from servemu_state.database import Database, open_database
from servemu_state.errors import ModelExists, ModelGone
from servemu_state.records import ModelVersion, RegisteredModel, VersionStatus


def model(name: str, id: str = "a" * 32, workspace: str = "default") -> RegisteredModel:
    return RegisteredModel(
        id,
        workspace,
        name,
        "me@example.com",
        1.0,
        2.0,
        "you@example.com",
        description="Über alles",
        last_version=2,
        aliases=(("champion", 2),),
        tags=(("team", "nlp"),),
    )


def version(number: int, model_id: str = "a" * 32) -> ModelVersion:
    return ModelVersion(
        model_id,
        number,
        VersionStatus.PENDING,
        "me@example.com",
        3.0,
        3.0,
        "me@example.com",
        source="models:/m-1",
        run_id="r",
        tags=(("a", "b"),),
        details={"model_id": "m-1"},
    )


@pytest.fixture
def db() -> Database:
    return open_database(":memory:")


def test_model_and_version_come_back_as_they_were(db: Database) -> None:
    with db.write() as conn:
        repository.insert(conn, model("c.s.m"))
        repository.insert_version(conn, version(1))
    with db.read() as conn:
        assert repository.get(conn, "default", "c.s.m") == model("c.s.m")
        assert repository.get_by_id(conn, "a" * 32) == model("c.s.m")
        assert repository.get_version(conn, "a" * 32, 1) == version(1)
        assert repository.get(conn, "other", "c.s.m") is None
        assert repository.get_version(conn, "a" * 32, 2) is None


def test_name_is_taken_once_a_workspace(db: Database) -> None:
    with db.write() as conn:
        repository.insert(conn, model("c.s.m"))
        repository.insert(conn, model("c.s.m", "b" * 32, "other"))
    with pytest.raises(ModelExists, match=r"'c\.s\.m' already exists"), db.write() as conn:
        repository.insert(conn, model("c.s.m", "c" * 32))


def test_rename_onto_a_taken_name_is_refused_and_a_missing_model_is_gone(db: Database) -> None:
    with db.write() as conn:
        repository.insert(conn, model("c.s.m"))
        repository.insert(conn, model("c.s.n", "b" * 32))
    with pytest.raises(ModelExists), db.write() as conn:
        repository.save(conn, model("c.s.n"))
    with pytest.raises(ModelGone), db.write() as conn:
        repository.save(conn, model("c.s.x", "d" * 32))
    with pytest.raises(ModelGone), db.write() as conn:
        repository.save_version(conn, version(9))


def test_versions_go_with_their_model_and_are_listed_newest_first(db: Database) -> None:
    with db.write() as conn:
        repository.insert(conn, model("c.s.m"))
        for number in (1, 2, 10):
            repository.insert_version(conn, version(number))
        repository.save_version(conn, replace(version(2), status=VersionStatus.READY))
        repository.delete_version(conn, "a" * 32, 1)
    with db.read() as conn:
        listed = repository.list_versions(conn, "a" * 32)
    assert [(v.version, v.status) for v in listed] == [
        (10, VersionStatus.PENDING),
        (2, VersionStatus.READY),
    ]
    with db.write() as conn:
        repository.delete(conn, "a" * 32)
        assert repository.list_versions(conn, "a" * 32) == []


def test_pages_take_the_prefix_literally_and_go_on_after_a_name(db: Database) -> None:
    names = ["c.s.a", "c.s.b", "c.s.c", "cxs.a", "c_s.s.a"]
    with db.write() as conn:
        for place, name in enumerate(names):
            repository.insert(conn, model(name, f"{place:032x}"))

    def listed(**where: str) -> list[str]:
        with db.read() as conn:
            found = repository.list_some(conn, "default", most=2, **where)
        return [one.name for one in found]

    assert listed(within="c.s.") == ["c.s.a", "c.s.b"]
    assert listed(within="c.s.", after="c.s.b") == ["c.s.c"]
    assert listed(within="c_s.") == ["c_s.s.a"]
