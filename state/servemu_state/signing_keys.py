"""Secrets that are made once a database. Every function runs in the caller's transaction."""

from sqlalchemy import Connection, bindparam, select

from . import models

_TABLE = models.signing_keys
_GET = select(_TABLE.c.secret).where(_TABLE.c.name == bindparam("named"))
_INSERT = _TABLE.insert()


def get(conn: Connection, name: str) -> str | None:
    """The secret of this name, or None."""
    secret: str | None = conn.execute(_GET, {"named": name}).scalar()
    return secret


def get_or_insert(conn: Connection, name: str, secret: str) -> str:
    """The secret that the database has, which is `secret` when it had none."""
    found = get(conn, name)
    if found is not None:
        return found
    conn.execute(_INSERT, {"name": name, "secret": secret})
    return secret
