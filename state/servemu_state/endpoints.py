"""Endpoints with their deployments. Every function runs in the caller's transaction."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    Connection,
    FromClause,
    Select,
    and_,
    bindparam,
    exists,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy.exc import IntegrityError

from . import models
from .codec import (
    decode,
    decode_deployment,
    encode,
    encode_entities,
    encode_optional,
    encode_routes,
)
from .errors import EndpointExists, EndpointGone
from .generations import CURRENT, IN_WORKSPACE, OUTDATED, name_of
from .records import ConfigUpdate, Deployment, Endpoint

_TABLE = models.endpoints
_DEPLOYMENTS = models.deployments
_CONTENT = [column for column in _DEPLOYMENTS.c if not column.primary_key]


def _joined() -> Select[Any]:
    """One row an endpoint: its 10 columns, then 7 of the active and 7 of the pending deployment."""
    source: FromClause = _TABLE
    columns: list[Any] = list(_TABLE.c)
    for role in (models.ACTIVE, models.PENDING):
        side = _DEPLOYMENTS.alias(role)
        belongs = and_(side.c.endpoint_id == _TABLE.c.id, side.c.role == literal(role))
        source = source.outerjoin(side, belongs)
        columns += [side.c[column.name] for column in _CONTENT]
    return select(*columns).select_from(source)


_WITH_ID = _TABLE.c.id == bindparam("with_id")
_BY_CREATION = (_TABLE.c.created_at, _TABLE.c.name)

_GET = _joined().where(IN_WORKSPACE, _TABLE.c.name == bindparam("named"))
_GET_BY_ID = _joined().where(IN_WORKSPACE, _WITH_ID)
_LIST_ALL = _joined().where(IN_WORKSPACE).order_by(*_BY_CREATION)
_IS_DUE = exists().where(
    _DEPLOYMENTS.c.endpoint_id == _TABLE.c.id, _DEPLOYMENTS.c.due_at.is_not(None)
)
_LIST_DUE = _joined().where(_IS_DUE).order_by(_TABLE.c.workspace, *_BY_CREATION)
_IS_SCALED = exists().where(
    _DEPLOYMENTS.c.endpoint_id == _TABLE.c.id,
    _DEPLOYMENTS.c.role == models.ACTIVE,
    or_(*(_DEPLOYMENTS.c.entities.contains(f'"replicas":{digit}') for digit in range(1, 10))),
)
_LIST_SCALED = _joined().where(_IS_SCALED).order_by(_TABLE.c.workspace, *_BY_CREATION)
_COUNT = select(func.count()).select_from(_TABLE).where(IN_WORKSPACE)
_INSERT = _TABLE.insert().values(workspace=CURRENT)
_UPDATE = _TABLE.update().where(_WITH_ID, IN_WORKSPACE)
_DELETE = _TABLE.delete().where(_WITH_ID)
_SOME = (
    select(_TABLE.c.id).where(_TABLE.c.workspace == bindparam("key")).limit(bindparam("at_most"))
)
_REMOVE_SOME = _TABLE.delete().where(_TABLE.c.id.in_(_SOME))
_ELSEWHERE = select(_TABLE.c.id).where(_TABLE.c.workspace != CURRENT).limit(1)
_DELETE_ALL = _TABLE.delete().where(IN_WORKSPACE)
_INSERT_DEPLOYMENTS = _DEPLOYMENTS.insert()
_DELETE_DEPLOYMENTS = _DEPLOYMENTS.delete().where(
    _DEPLOYMENTS.c.endpoint_id == bindparam("of_endpoint")
)


def get(conn: Connection, workspace: str, name: str) -> Endpoint | None:
    """The endpoint of this name, or None."""
    row = conn.execute(_GET, {"in_workspace": workspace, "named": name}).first()
    return None if row is None else _endpoint(tuple(row))


def get_by_id(conn: Connection, workspace: str, id: str) -> Endpoint | None:
    """The endpoint with this id in this workspace, or None."""
    row = conn.execute(_GET_BY_ID, {"in_workspace": workspace, "with_id": id}).first()
    return None if row is None else _endpoint(tuple(row))


def list_all(conn: Connection, workspace: str) -> list[Endpoint]:
    """The workspace's endpoints, by creation, then name."""
    return [_endpoint(tuple(row)) for row in conn.execute(_LIST_ALL, {"in_workspace": workspace})]


def count(conn: Connection, workspace: str) -> int:
    """How many endpoints the workspace has."""
    return int(conn.execute(_COUNT, {"in_workspace": workspace}).scalar_one())


def list_due(conn: Connection) -> list[Endpoint]:
    """The endpoints of all workspaces with a deployment that is due for something: to resume."""
    return [_endpoint(tuple(row)) for row in conn.execute(_LIST_DUE)]


def list_scaled(conn: Connection) -> list[Endpoint]:
    """The endpoints of all workspaces that serve with more replicas than they must."""
    return [_endpoint(tuple(row)) for row in conn.execute(_LIST_SCALED)]


def insert(conn: Connection, endpoint: Endpoint) -> None:
    """Stores a new endpoint. Raises EndpointExists when the workspace has its name already."""
    with _name_is_unique(endpoint):
        conn.execute(_INSERT, _columns(endpoint))
    _insert_deployments(conn, endpoint)


def save(conn: Connection, endpoint: Endpoint) -> None:
    """Replaces the endpoint and its deployments.

    Raises EndpointGone when its id is not there, EndpointExists when its new name is taken.
    """
    with _name_is_unique(endpoint):
        updated = conn.execute(_UPDATE, {**_columns(endpoint), "with_id": endpoint.id})
    if updated.rowcount == 0:
        raise EndpointGone(endpoint.id)
    conn.execute(_DELETE_DEPLOYMENTS, {"of_endpoint": endpoint.id})
    _insert_deployments(conn, endpoint)


def delete(conn: Connection, endpoint_id: str) -> None:
    """Forgets the endpoint with its deployments and events; one that is gone already is fine."""
    conn.execute(_DELETE, {"with_id": endpoint_id})


def delete_all(conn: Connection, workspace: str) -> None:
    """Forgets all endpoints of the workspace with their deployments and events."""
    if conn.execute(_ELSEWHERE, {"in_workspace": workspace}).first() is None:
        # The usual case, and twice as fast: SQLite empties a whole table without visiting its rows.
        conn.execute(models.events.delete())
        conn.execute(models.permissions.delete())
        conn.execute(_DEPLOYMENTS.delete())
    conn.execute(_DELETE_ALL, {"in_workspace": workspace})


def is_taken(conn: Connection, id: str) -> bool:
    """Some workspace has an endpoint with this id."""
    return conn.execute(select(_TABLE.c.id).where(_WITH_ID), {"with_id": id}).first() is not None


def remove_some(conn: Connection, key: str, at_most: int) -> int:
    """Deletes endpoints of an earlier generation (`generations.key_of`); answers how many."""
    return conn.execute(_REMOVE_SOME, {"key": key, "at_most": at_most}).rowcount


def remove_outdated(conn: Connection) -> None:
    """Deletes all endpoints of earlier generations."""
    conn.execute(_TABLE.delete().where(OUTDATED))


@contextmanager
def _name_is_unique(endpoint: Endpoint) -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise EndpointExists(endpoint.workspace, endpoint.name) from error


def _insert_deployments(conn: Connection, endpoint: Endpoint) -> None:
    rows = [
        _deployment_columns(endpoint.id, role, deployment)
        for role, deployment in (
            (models.ACTIVE, endpoint.active),
            (models.PENDING, endpoint.pending),
        )
        if deployment is not None
    ]
    if rows:
        conn.execute(_INSERT_DEPLOYMENTS, rows)


def _columns(endpoint: Endpoint) -> dict[str, object]:
    return {
        "id": endpoint.id,
        "in_workspace": endpoint.workspace,
        "name": endpoint.name,
        "creator": endpoint.creator,
        "created_at": endpoint.created_at,
        "updated_at": endpoint.updated_at,
        "config_update": endpoint.config_update.value,
        "last_config_version": endpoint.last_config_version,
        "tags": encode(endpoint.tags),
        "settings": encode(endpoint.settings),
    }


def _deployment_columns(endpoint_id: str, role: str, deployment: Deployment) -> dict[str, object]:
    return {
        "endpoint_id": endpoint_id,
        "role": role,
        "config_version": deployment.config_version,
        "entities": encode_entities(deployment.entities),
        "routes": encode_routes(deployment.routes),
        "started_at": deployment.started_at,
        "stage": deployment.stage,
        "due_at": deployment.due_at,
        "fault": encode_optional(deployment.fault),
    }


@lru_cache(maxsize=16384)  # most reads find what was there before, and records never change
def _endpoint(row: tuple[Any, ...]) -> Endpoint:
    id, workspace, name, creator, created_at, updated_at, update, version, tags, settings = row[:10]
    return Endpoint(
        id=id,
        workspace=name_of(workspace),
        name=name,
        creator=creator,
        created_at=created_at,
        updated_at=updated_at,
        config_update=ConfigUpdate(update),
        last_config_version=version,
        tags=tuple((key, value) for key, value in decode(tags)),
        settings=decode(settings),
        active=decode_deployment(row[10:17]),
        pending=decode_deployment(row[17:]),
    )
