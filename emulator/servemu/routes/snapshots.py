"""`/_emulator/snapshots`: named states of the caller's workspace."""

import re

from starlette.requests import Request
from starlette.responses import Response

from servemu import snapshots
from servemu.errors import InvalidParameter, ResourceNotFound
from servemu.responses import json_response
from servemu.schemas.body import read_object
from servemu.schemas.snapshots import Document
from servemu.world import principal_of, world_of
from servemu_state import snapshots as stored
from servemu_state.records import Snapshot

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


async def list_all(request: Request) -> Response:
    """By name."""
    with world_of(request).db.read() as connection:
        found = stored.list_all(connection, principal_of(request).workspace)
    return json_response({"snapshots": [_summary(snapshot) for snapshot in found]})


async def save(request: Request) -> Response:
    """Without a body: the workspace as it is now; with one: that document, once it is checked."""
    world, workspace, name = world_of(request), principal_of(request).workspace, _name(request)
    given = await read_object(request)
    document = snapshots.checked(given) if given else snapshots.take(world, workspace)
    snapshots.keep(world, workspace, name, document)
    return json_response(_summary(Snapshot(workspace, name, document.model_dump(mode="json"))))


async def export(request: Request) -> Response:
    """The document, to be kept as a file."""
    return json_response(_found(request).model_dump(mode="json"))


async def restore(request: Request) -> Response:
    """The workspace is as it was; deployments under way go on from there."""
    world, workspace = world_of(request), principal_of(request).workspace
    document = _found(request)
    snapshots.restore(world, workspace, document)
    return json_response(
        _summary(Snapshot(workspace, _name(request), document.model_dump(mode="json")))
    )


async def remove(request: Request) -> Response:
    name = _name(request)
    with world_of(request).db.write() as connection:
        if not stored.delete(connection, principal_of(request).workspace, name):
            raise ResourceNotFound(f"Snapshot with name '{name}' does not exist.")
    return json_response({})


def _found(request: Request) -> Document:
    return snapshots.find(world_of(request), principal_of(request).workspace, _name(request))


def _name(request: Request) -> str:
    name: str = request.path_params["name"]
    if NAME.fullmatch(name) is None:
        raise InvalidParameter(
            f"The name of a snapshot has letters, digits, '.', '_', '-', at most 63, got '{name}'."
        )
    return name


def _summary(snapshot: Snapshot) -> dict[str, object]:
    document = snapshot.document
    return {
        "name": snapshot.name,
        "taken_at": document["taken_at"],
        "endpoints": [endpoint["name"] for endpoint in document["endpoints"]],
        "faults": len(document["faults"]),
    }
