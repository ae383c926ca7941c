"""`/_emulator/reset`: the caller's workspace as a whole."""

import asyncio

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from servemu.attic import Attic
from servemu.reset import reset
from servemu.responses import json_response
from servemu.world import principal_of, world_of


async def reset_workspace(request: Request) -> Response:
    """Back to its first second, atomically; nobody else's workspace notices."""
    world = world_of(request)
    gone = reset(world, principal_of(request).workspace)
    answer = json_response({"endpoints": gone})
    answer.background = BackgroundTask(empty_slowly, world.attic)
    return answer


async def empty_slowly(attic: Attic) -> None:
    """A few rows at a time, so that requests get through in between."""
    while attic.empty_some():
        await asyncio.sleep(0)
