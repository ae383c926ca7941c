"""`PUT …/{name}/rate-limits` and `PUT …/{name}/ai-gateway` (facts/control_plane §1.1)."""

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from servemu.lifecycle.gateway import replace_gateway, with_setting
from servemu.responses import json_response
from servemu.routes.asking import own_name
from servemu.schemas.body import read_body
from servemu.schemas.gateway import AiGateway, PutRateLimits
from servemu.world import principal_of, world_of
from servemu_state.records import Endpoint


async def put_rate_limits(request: Request) -> Response:
    """Deprecated; kept, and shown by no other route (facts/control_plane §2.6)."""
    name, body = own_name(request), await read_body(request, PutRateLimits)
    limits = [limit.shown() for limit in body.rate_limits]

    def step(endpoint: Endpoint, now: float) -> Endpoint:
        settings = with_setting(endpoint, "rate_limits", limits or None)
        return replace(endpoint, settings=settings, updated_at=now)

    world_of(request).deployments.change(principal_of(request).workspace, name, step)
    return json_response({"rate_limits": limits})


async def put_ai_gateway(request: Request) -> Response:
    """The whole of it is replaced; `{}` clears it."""
    name, body = own_name(request), await read_body(request, AiGateway)
    endpoint = world_of(request).deployments.change(
        principal_of(request).workspace,
        name,
        lambda endpoint, now: replace_gateway(endpoint, body, now),
    )
    return json_response(endpoint.settings.get("ai_gateway", {}))
