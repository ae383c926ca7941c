"""Views that the table of routes names; a family is imported when it is first asked.

A start would wait for all models of all bodies, of which most are never sent.
"""

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import cast

from starlette.requests import Request
from starlette.responses import Response

View = Callable[[Request], Awaitable[Response]]


def view(name: str) -> View:
    """`family.function` of this folder, which is looked up when a request comes."""
    family, _, function = name.partition(".")

    async def late(request: Request) -> Response:
        return await viewed(late)(request)

    late.__module__ = f"servemu.routes.{family}"
    late.__name__ = late.__qualname__ = function
    return late


def viewed(late: View) -> View:
    """The function itself. Raises `ImportError`, `AttributeError` where a name is wrong."""
    return cast(View, getattr(import_module(late.__module__), late.__name__))
