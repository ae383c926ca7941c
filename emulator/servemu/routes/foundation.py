"""`GET /api/2.0/serving-endpoints:foundation-models` (facts/control_plane §1.2)."""

from starlette.requests import Request
from starlette.responses import Response

from servemu.responses import json_response
from servemu.schemas.foundation import render_foundation_model
from servemu.world import world_of


async def list_models(request: Request) -> Response:
    provided = world_of(request).catalog.foundation_endpoints
    return json_response({"endpoints": [render_foundation_model(one) for one in provided]})
