"""`/_emulator/replies`: what is answered instead of what a model would have generated."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from servemu.replies import render_reply
from servemu.responses import json_response
from servemu.schemas.body import read_object
from servemu.world import principal_of, world_of


async def add(request: Request) -> Response:
    given: dict[str, Any] = await read_object(request)
    world, workspace = world_of(request), principal_of(request).workspace
    return json_response(
        render_reply(world.replies.add(workspace, given, world.workspaces.now(workspace)))
    )


async def list_all(request: Request) -> Response:
    kept = world_of(request).replies.list_all(principal_of(request).workspace)
    return json_response({"replies": [render_reply(one) for one in kept]})


async def get(request: Request) -> Response:
    workspace, reply_id = principal_of(request).workspace, request.path_params["id"]
    return json_response(render_reply(world_of(request).replies.get(workspace, reply_id)))


async def remove(request: Request) -> Response:
    workspace, reply_id = principal_of(request).workspace, request.path_params["id"]
    world_of(request).replies.remove(workspace, reply_id)
    return json_response({})


async def clear(request: Request) -> Response:
    world_of(request).replies.clear(principal_of(request).workspace)
    return json_response({})
