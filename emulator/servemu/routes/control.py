"""The emulator's own switches, under `/_emulator` (design §11)."""

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response

from servemu import __version__
from servemu.coverage import ledger
from servemu.errors import InvalidParameter
from servemu.faults.ledger import render_rule
from servemu.faults.presets import phase_of
from servemu.faults.presets import presets as named_failures
from servemu.responses import json_response
from servemu.schemas.body import read_body, read_json
from servemu.schemas.control import Advance
from servemu.world import principal_of, world_of


async def health(request: Request) -> Response:
    """200 only when requests are answered: the database is asked too."""
    world = world_of(request)
    num_endpoints = world.deployments.count(principal_of(request).workspace)
    return json_response(
        {
            "status": "ok",
            "version": __version__,
            "engine": world.settings.engine,
            "database": world.db.where,
            "endpoints": num_endpoints,
            "speedup": world.settings.speedup,
            "uptime_seconds": round(world.clock.monotonic() - world.started_at, 3),
        }
    )


async def add_fault(request: Request) -> Response:
    """A rule, or a list of them (`[…]` or `{"faults": […]}`): all are added, or none is."""
    given = await read_json(request)
    workspace = principal_of(request).workspace
    world = world_of(request)
    rules = given.get("faults", given) if isinstance(given, dict) else given
    one = isinstance(rules, dict)
    several = [rules] if one else rules
    if not isinstance(several, list) or not all(isinstance(rule, dict) for rule in several):
        raise InvalidParameter("Invalid value for field 'faults': Input should be a list of rules")
    stored = world.faults.add_all(workspace, several, world.workspaces.now(workspace))
    world.deployments.changed.set()
    shown = [render_rule(rule) for rule in stored]
    return json_response(shown[0] if one else {"faults": shown})


async def list_faults(request: Request) -> Response:
    rules = world_of(request).faults.list_all(principal_of(request).workspace)
    return json_response({"faults": [render_rule(rule) for rule in rules]})


async def get_fault(request: Request) -> Response:
    rule_id = request.path_params["id"]
    stored = world_of(request).faults.get(principal_of(request).workspace, rule_id)
    return json_response(render_rule(stored))


async def delete_fault(request: Request) -> Response:
    world_of(request).faults.remove(principal_of(request).workspace, request.path_params["id"])
    world_of(request).deployments.changed.set()
    return json_response({})


async def clear_faults(request: Request) -> Response:
    world_of(request).faults.clear(principal_of(request).workspace)
    world_of(request).deployments.changed.set()
    return json_response({})


async def presets(request: Request) -> Response:
    shown = [
        {
            "name": preset.name,
            "source": preset.source,
            "shows": preset.shows,
            "rule": {"phase": phase_of(preset), **preset.rule},
        }
        for preset in named_failures().values()
    ]
    return json_response({"presets": shown})


async def clock(request: Request) -> Response:
    workspace = principal_of(request).workspace
    workspaces = world_of(request).workspaces
    return json_response(
        {
            "now": workspaces.now(workspace),
            "advanced_by": workspaces.open(workspace).clock_offset,
            "speedup": world_of(request).settings.speedup,
        }
    )


async def advance_clock(request: Request) -> Response:
    """Everything that falls due has happened before this answers."""
    body = await read_body(request, Advance)
    world, workspace = world_of(request), principal_of(request).workspace
    world.workspaces.advance(workspace, body.seconds)
    await world.reconciler.settle(workspace)
    return await clock(request)


async def openapi(request: Request) -> Response:
    """Of all routes: the emulated ones and these."""
    from servemu.openapi.emulator import document  # a hundred schemas that no start waits for

    host = str(request.base_url).rstrip("/")
    return json_response(document(request.app.routes, host))


async def coverage(request: Request) -> Response:
    """Which call of which real client is proven to work, and by which test."""
    return json_response({"coverage": [asdict(row) for row in ledger()]})
