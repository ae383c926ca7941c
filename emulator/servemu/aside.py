"""Work on long bodies, in a worker thread: on the event loop it would hold up every stream."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from starlette.requests import Request

SHORT = 20_000
"""Bytes of a body that is read on the event loop: about 10 ms with the tokens of its prompt."""

P = ParamSpec("P")
T = TypeVar("T")


def note_size(request: Request, num_bytes: int) -> None:
    """The body has been read."""
    request.scope["body_bytes"] = num_bytes


async def aside(request: Request, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do `work`; in a worker thread if the body is long."""
    if request.scope.get("body_bytes", 0) < SHORT:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)
