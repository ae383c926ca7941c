"""`/_emulator/listings`: the Marketplace's "Get access", for which there is no public route."""

from starlette.requests import Request
from starlette.responses import Response

from servemu.registry.marketplace import install, listings
from servemu.responses import json_response
from servemu.schemas.body import read_body
from servemu.schemas.registry import InstallListing
from servemu.schemas.unity_catalog import render_version
from servemu.world import principal_of, world_of


async def list_listings(request: Request) -> Response:
    """What can be installed."""
    found = sorted(listings(world_of(request).catalog).items())
    shown = [
        {"name": name, "task": model.task, "model_type": model.family.model_type}
        for name, model in found
    ]
    return json_response({"listings": shown})


async def install_listing(request: Request) -> Response:
    """Put a listing into Unity Catalog; answers the version, which is READY at once."""
    body = await read_body(request, InstallListing)
    world, caller = world_of(request), principal_of(request)
    asked = (request.path_params["listing"], body.name)
    return json_response(render_version(*install(world.models, world.versions, caller, asked)))
