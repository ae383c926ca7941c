"""`POST /api/2.0/external-function`."""

from starlette.requests import Request
from starlette.responses import Response

from servemu.external_functions import call
from servemu.schemas.body import read_body
from servemu.schemas.external_functions import ExternalFunction
from servemu.world import world_of

PASSED_ON = ("content-type", "mcp-session-id")
"""The Go SDK reads the second."""


async def call_function(request: Request) -> Response:
    """The other side's answer, untouched."""
    answer = await call(await read_body(request, ExternalFunction), world_of(request).settings)
    headers = {name: answer.headers[name] for name in PASSED_ON if name in answer.headers}
    return Response(answer.content, answer.status_code, headers)
