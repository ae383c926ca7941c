"""`/_emulator/verdict` and `/_emulator/events/hash`: how it went, in short."""

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response

from servemu import event_log, verdict
from servemu.responses import json_response
from servemu.world import World, principal_of, world_of
from servemu_state import events


async def judge(request: Request) -> Response:
    """Findings on the client's behaviour, each with the ids of the requests that show it."""
    world, workspace = world_of(request), principal_of(request).workspace
    entries = world.journal.entries(workspace)
    findings = verdict.judge(
        verdict.Seen(
            entries,
            world.deployments.list_all(workspace),
            world.faults.list_all(workspace),
        )
    )
    return json_response(
        {
            "grade": verdict.overall(findings),
            "findings": [finding.render() for finding in findings],
            "thresholds": asdict(verdict.THRESHOLDS),
            "requests": len(entries),
            "event_log_hash": event_log.digest(log_of(world, workspace)),
        }
    )


async def events_hash(request: Request) -> Response:
    """Equal for two runs of the same seed on a paused clock."""
    world, workspace = world_of(request), principal_of(request).workspace
    log = log_of(world, workspace)
    return json_response(
        {"hash": event_log.digest(log), "events": len(log), "seed": world.settings.seed}
    )


def log_of(world: World, workspace: str) -> list[str]:
    """The event log as it is now."""
    began = world.workspaces.open(workspace).created_at
    with world.db.read() as connection:
        history = events.list_of_workspace(connection, workspace)
    owners = {endpoint.id: endpoint for endpoint in world.deployments.list_all(workspace)}
    told = [(owners[e.endpoint_id], e) for e in history if e.endpoint_id in owners]
    return event_log.lines(began, told, world.journal.entries(workspace))
