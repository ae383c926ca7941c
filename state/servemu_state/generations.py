"""Which rows of endpoints are a workspace's: those of its generation, so that one number resets it.

The column `workspace` of endpoints holds the plain name in generation 0, `.3.name` in the third.
"""

from sqlalchemy import ColumnElement, String, bindparam, case, cast, func, literal, select

from . import models
from .records import Workspace

_WORKSPACES = models.workspaces
_FIRST = "."
"""No workspace's name begins so."""
_LATER = (literal(_FIRST).concat(cast(_WORKSPACES.c.generation, String)).concat(_FIRST)).concat(
    _WORKSPACES.c.name
)
_KEY = case((_WORKSPACES.c.generation == 0, _WORKSPACES.c.name), else_=_LATER)
CURRENT: ColumnElement[str] = func.coalesce(
    select(_KEY).where(_WORKSPACES.c.name == bindparam("in_workspace")).scalar_subquery(),
    bindparam("in_workspace"),
)
"""What the column holds for the workspace bound to `in_workspace`; it may have no row yet."""
IN_WORKSPACE = models.endpoints.c.workspace == CURRENT
OUTDATED = models.endpoints.c.workspace.not_in(select(_KEY)) & (
    models.endpoints.c.workspace.startswith(_FIRST)
    | models.endpoints.c.workspace.in_(select(_WORKSPACES.c.name))
)
"""Rows of an earlier generation."""


def key_of(workspace: Workspace) -> str:
    """What the column holds for this generation of the workspace."""
    if workspace.generation == 0:
        return workspace.name
    return f"{_FIRST}{workspace.generation}{_FIRST}{workspace.name}"


def name_of(key: str) -> str:
    """The workspace's name."""
    return key.split(_FIRST, 2)[2] if key.startswith(_FIRST) else key
