"""The history of endpoints. Every function runs in the caller's transaction."""

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.exc import IntegrityError

from . import models
from .errors import EndpointGone
from .generations import IN_WORKSPACE
from .records import Event

_TABLE = models.events
_INSERT = _TABLE.insert()
_NEWEST = (
    select(*(column for column in _TABLE.c if not column.primary_key))
    .where(_TABLE.c.endpoint_id == bindparam("of_endpoint"))
    .order_by(_TABLE.c.id.desc())
    .limit(bindparam("at_most"))
)
_OF_VERSION = (
    select(*(column for column in _TABLE.c if not column.primary_key))
    .where(
        _TABLE.c.endpoint_id == bindparam("of_endpoint"),
        _TABLE.c.config_version == bindparam("of_version"),
    )
    .order_by(_TABLE.c.id)
)
_OF_WORKSPACE = (
    select(*(column for column in _TABLE.c if not column.primary_key))
    .join(models.endpoints, models.endpoints.c.id == _TABLE.c.endpoint_id)
    .where(IN_WORKSPACE)
    .order_by(_TABLE.c.id)
)


def append(conn: Connection, event: Event) -> None:
    """Adds a line to an endpoint's history. Raises EndpointGone when there is no such endpoint."""
    row = {
        "endpoint_id": event.endpoint_id,
        "at": event.at,
        "type": event.type,
        "status": event.status,
        "message": event.message,
        "config_version": event.config_version,
    }
    try:
        conn.execute(_INSERT, row)
    except IntegrityError as error:
        raise EndpointGone(event.endpoint_id) from error


def list_newest(conn: Connection, endpoint_id: str, limit: int = 200) -> list[Event]:
    """The last `limit` events of an endpoint, newest first (facts/control_plane §1, `events`)."""
    rows = conn.execute(_NEWEST, {"of_endpoint": endpoint_id, "at_most": limit})
    return [Event(*row) for row in rows]


def list_of_version(conn: Connection, endpoint_id: str, config_version: int) -> list[Event]:
    """All events of one config version of an endpoint, oldest first."""
    rows = conn.execute(_OF_VERSION, {"of_endpoint": endpoint_id, "of_version": config_version})
    return [Event(*row) for row in rows]


def list_of_workspace(conn: Connection, workspace: str) -> list[Event]:
    """All events of all endpoints of the workspace, oldest first."""
    return [Event(*row) for row in conn.execute(_OF_WORKSPACE, {"in_workspace": workspace})]
