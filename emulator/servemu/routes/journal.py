"""`/_emulator/requests`: the journal."""

import re
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from servemu.attempts import attempts
from servemu.entry import Entry
from servemu.errors import InvalidParameter
from servemu.journal import render
from servemu.responses import json_response
from servemu.world import principal_of, world_of

MAX_WAIT = 5
"""Seconds; no longer, so that a stop of the emulator is not held up."""
DEFAULT_LIMIT = 1000
STATUS = re.compile(r"[1-5](xx|[0-9]{2})|null")

Wanted = Callable[[Entry], bool]


async def requests(request: Request) -> Response:
    """Oldest first; of more than `limit` the newest. `wait`: until there is one after `since`."""
    journal, workspace = world_of(request).journal, principal_of(request).workspace
    since = whole(request, "since", 0, 10**12)
    limit = whole(request, "limit", DEFAULT_LIMIT, 10**6)
    seconds = whole(request, "wait", 0, MAX_WAIT)
    wanted = _wanted(request, since)
    if seconds:
        await journal.wait(workspace, since, seconds)
    shown = [
        render(entry, attempt)
        for entry, attempt in attempts(journal.entries(workspace))
        if wanted(entry)
    ]
    return json_response({"requests": shown[-limit:], "next_since": journal.last(workspace)})


def _wanted(request: Request, since: int) -> Wanted:
    """What the query asks for. Raises `InvalidParameter`."""
    operation = request.query_params.get("operation")
    endpoint = request.query_params.get("endpoint")
    status = request.query_params.get("status")
    if status is not None and STATUS.fullmatch(status) is None:
        raise InvalidParameter(f"status must be as 429, 4xx or null, got '{status}'.")

    def wanted(entry: Entry) -> bool:
        return (
            entry.number > since
            and operation in (None, entry.operation)
            and endpoint in (None, entry.endpoint)
            and (status is None or _has(entry.status, status))
        )

    return wanted


def _has(status: int | None, wanted: str) -> bool:
    if wanted.endswith("xx"):
        return status is not None and str(status)[0] == wanted[0]
    return wanted == ("null" if status is None else str(status))


def whole(request: Request, name: str, default: int, most: int) -> int:
    """A whole number of the query. Raises `InvalidParameter`."""
    given = request.query_params.get(name)
    if given is None:
        return default
    if re.fullmatch(r"[0-9]{1,12}", given) is None or int(given) > most:
        raise InvalidParameter(f"{name} must be a whole number up to {most}, got '{given}'.")
    return int(given)
