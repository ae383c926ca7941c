"""`PATCH …/{name}/notifications` and `…/telemetry-config` (facts/control_plane §1.1)."""

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from servemu.lifecycle.gateway import with_setting
from servemu.lifecycle.telemetry import patch_telemetry
from servemu.responses import json_response
from servemu.routes.asking import own_name
from servemu.schemas.body import read_body
from servemu.schemas.rendering import render_endpoint
from servemu.schemas.telemetry import PatchNotifications, PatchTelemetry
from servemu.world import principal_of, world_of
from servemu_state.records import Endpoint


async def patch_notifications(request: Request) -> Response:
    """Answers the name and the notifications; GET shows them from now on (GUESS)."""
    name, body = own_name(request), await read_body(request, PatchNotifications)
    asked = None if body.email_notifications is None else body.email_notifications.shown()

    def step(endpoint: Endpoint, now: float) -> Endpoint:
        if asked is None:
            return endpoint
        settings = with_setting(endpoint, "email_notifications", asked)
        return replace(endpoint, settings=settings, updated_at=now)

    endpoint = world_of(request).deployments.change(principal_of(request).workspace, name, step)
    shown = endpoint.settings.get("email_notifications", {})
    return json_response({"name": name, "email_notifications": shown})


async def patch_telemetry_config(request: Request) -> Response:
    name, body = own_name(request), await read_body(request, PatchTelemetry)
    endpoint = world_of(request).deployments.change(
        principal_of(request).workspace,
        name,
        lambda endpoint, now: patch_telemetry(endpoint, body.telemetry_config, now),
    )
    return json_response(render_endpoint(endpoint))
