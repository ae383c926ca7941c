"""Registered models and their versions. Every function runs in the caller's transaction.

Versions belong to the model's id, so that a rename touches one row.
"""

from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select
from sqlalchemy.exc import IntegrityError

from . import models
from .codec import decode, encode
from .errors import ModelExists, ModelGone
from .records import ModelVersion, RegisteredModel, VersionStatus

_MODELS = models.registered_models
_VERSIONS = models.model_versions

_LAST = "\U0010ffff"
"""After every character of a name."""

_IN_WORKSPACE = _MODELS.c.workspace == bindparam("in_workspace")
_WITH_ID = _MODELS.c.id == bindparam("with_id")
_OF_MODEL = _VERSIONS.c.model_id == bindparam("of_model")
_NUMBERED = _VERSIONS.c.version == bindparam("numbered")

_GET = select(_MODELS).where(_IN_WORKSPACE, _MODELS.c.name == bindparam("named"))
_GET_BY_ID = select(_MODELS).where(_WITH_ID)
_LIST = (
    select(_MODELS)
    .where(
        _IN_WORKSPACE,
        _MODELS.c.name > bindparam("after"),
        _MODELS.c.name >= bindparam("within"),
        _MODELS.c.name < bindparam("within_end"),
    )
    .order_by(_MODELS.c.name)
    .limit(bindparam("most"))
)
_INSERT = _MODELS.insert()
_UPDATE = _MODELS.update().where(_WITH_ID)
_DELETE = _MODELS.delete().where(_WITH_ID)
_DELETE_ALL = _MODELS.delete().where(_IN_WORKSPACE).returning(_MODELS.c.id)
_GET_VERSION = select(_VERSIONS).where(_OF_MODEL, _NUMBERED)
_LIST_VERSIONS = select(_VERSIONS).where(_OF_MODEL).order_by(_VERSIONS.c.version.desc())
_INSERT_VERSION = _VERSIONS.insert()
_UPDATE_VERSION = _VERSIONS.update().where(_OF_MODEL, _NUMBERED)
_DELETE_VERSION = _VERSIONS.delete().where(_OF_MODEL, _NUMBERED)


def get(conn: Connection, workspace: str, name: str) -> RegisteredModel | None:
    """The model of this three-level name, or None."""
    row = conn.execute(_GET, {"in_workspace": workspace, "named": name}).first()
    return None if row is None else _model(row)


def get_by_id(conn: Connection, id: str) -> RegisteredModel | None:
    """The model with this id, or None."""
    row = conn.execute(_GET_BY_ID, {"with_id": id}).first()
    return None if row is None else _model(row)


def list_some(
    conn: Connection, workspace: str, *, within: str = "", after: str = "", most: int
) -> list[RegisteredModel]:
    """At most `most` models by name: those after `after` whose names begin with `within`."""
    bound = {"in_workspace": workspace, "after": after, "most": most}
    bound |= {"within": within, "within_end": within + _LAST}
    return [_model(row) for row in conn.execute(_LIST, bound)]


def insert(conn: Connection, model: RegisteredModel) -> None:
    """A new model. Raises `ModelExists`."""
    try:
        conn.execute(_INSERT, _model_row(model))
    except IntegrityError as error:
        raise ModelExists(model.workspace, model.name) from error


def save(conn: Connection, model: RegisteredModel) -> None:
    """The model as it is now, under a new name too. Raises `ModelGone`, `ModelExists`."""
    try:
        found = conn.execute(_UPDATE, {**_model_row(model), "with_id": model.id}).rowcount
    except IntegrityError as error:
        raise ModelExists(model.workspace, model.name) from error
    if not found:
        raise ModelGone(model.workspace, model.name)


def delete(conn: Connection, id: str) -> None:
    """The model with its versions. One that is not there: nothing happens."""
    conn.execute(_DELETE, {"with_id": id})


def delete_all(conn: Connection, workspace: str) -> list[str]:
    """All models of the workspace, with their versions. Answers their ids."""
    return list(conn.execute(_DELETE_ALL, {"in_workspace": workspace}).scalars())


def get_version(conn: Connection, model_id: str, version: int) -> ModelVersion | None:
    """The version of the model, or None."""
    row = conn.execute(_GET_VERSION, {"of_model": model_id, "numbered": version}).first()
    return None if row is None else _version(row)


def list_versions(conn: Connection, model_id: str) -> list[ModelVersion]:
    """The versions of the model, newest first."""
    return [_version(row) for row in conn.execute(_LIST_VERSIONS, {"of_model": model_id})]


def insert_version(conn: Connection, version: ModelVersion) -> None:
    """A new version, whose number the caller took from `last_version`."""
    conn.execute(_INSERT_VERSION, _version_row(version))


def save_version(conn: Connection, version: ModelVersion) -> None:
    """The version as it is now. Raises `ModelGone`."""
    bound = {"of_model": version.model_id, "numbered": version.version}
    if not conn.execute(_UPDATE_VERSION, {**_version_row(version), **bound}).rowcount:
        raise ModelGone("", f"{version.model_id}/{version.version}")


def delete_version(conn: Connection, model_id: str, version: int) -> None:
    """The version. One that is not there: nothing happens."""
    conn.execute(_DELETE_VERSION, {"of_model": model_id, "numbered": version})


def _model(row: Row[Any]) -> RegisteredModel:
    columns = dict(row._mapping)
    aliases, tags = _pairs(columns.pop("aliases")), _pairs(columns.pop("tags"))
    return RegisteredModel(**columns, aliases=aliases, tags=tags)


def _model_row(model: RegisteredModel) -> dict[str, Any]:
    return {**asdict(model), "aliases": encode(model.aliases), "tags": encode(model.tags)}


def _version(row: Row[Any]) -> ModelVersion:
    columns = dict(row._mapping)
    status = VersionStatus(columns.pop("status"))
    tags, details = _pairs(columns.pop("tags")), decode(columns.pop("details"))
    return ModelVersion(**columns, status=status, tags=tags, details=details)


def _pairs(text: str) -> tuple[tuple[str, Any], ...]:
    return tuple((key, value) for key, value in decode(text))


def _version_row(version: ModelVersion) -> dict[str, Any]:
    row = asdict(version)
    return {**row, "tags": encode(version.tags), "details": encode(version.details)}
