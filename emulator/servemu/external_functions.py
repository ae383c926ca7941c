"""Calls through a Unity Catalog connection, and where they may go: to this machine only, unless
the setting `external_function_hosts` says else. Connections are a table of the settings.
"""

from collections.abc import Mapping
from fnmatch import fnmatch
from ipaddress import ip_address
from typing import TYPE_CHECKING

from servemu.errors import BadRequest, PermissionDenied, ResourceNotFound
from servemu.schemas.external_functions import ExternalFunction
from servemu.settings import Connection, Settings

if TYPE_CHECKING:
    import httpx

OURS = frozenset({"host", "content-length", "transfer-encoding", "connection"})
"""Headers that belong to the hop, not to the request."""


async def call(asked: ExternalFunction, settings: Settings) -> "httpx.Response":
    """What the other side answers, whatever its status.

    Raises `ResourceNotFound` (no such connection), `PermissionDenied` (a host that is not
    allowed), `BadRequest` (it cannot be reached). All texts are a GUESS.
    """
    import httpx  # 60 ms, and hardly anybody calls this

    connection = settings.connections.get(asked.connection_name)
    if connection is None:
        raise ResourceNotFound(
            f"Connection '{asked.connection_name}' does not exist.",
            {"X-Emulator-Why": "connections are settings: [connections.NAME] host = URL"},
        )
    try:
        url = _url(httpx.URL(connection.host), asked)
        if not is_allowed(url.host, settings.external_function_hosts):
            raise PermissionDenied(
                f"Connection '{asked.connection_name}' may not call host '{url.host}'.",
                {"X-Emulator-Why": "only this machine, and what external_function_hosts names"},
            )
        # Certificates are read for https only: 50 ms. No redirect may lead around the check above.
        async with httpx.AsyncClient(
            trust_env=False, verify=url.scheme == "https", timeout=settings.request_timeout
        ) as client:
            return await client.request(
                asked.method,
                url,
                headers=_headers(asked, connection),
                json=asked.body,
                params=asked.params,
            )
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise BadRequest(f"Connection '{asked.connection_name}' failed: {error}") from None


def is_allowed(host: str, patterns: tuple[str, ...]) -> bool:
    """The host is this machine, or one of the globs fits."""
    if host == "localhost" or any(fnmatch(host, pattern) for pattern in patterns):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _url(base: "httpx.URL", asked: ExternalFunction) -> "httpx.URL":
    """Below the connection's own path; what is asked for cannot change the host."""
    below, _, query = asked.path.partition("#")[0].partition("?")
    path = f"{base.path.rstrip('/')}/{below.lstrip('/')}"
    host = f"{asked.sub_domain}.{base.host}" if asked.sub_domain else base.host
    return base.copy_with(host=host, path=path, query=query.encode() or None)


def _headers(asked: ExternalFunction, connection: Connection) -> Mapping[str, str]:
    given = asked.headers or {}
    headers = {name: str(value) for name, value in given.items() if name.lower() not in OURS}
    if connection.bearer_token is not None:
        headers["Authorization"] = f"Bearer {connection.bearer_token.get_secret_value()}"
    return headers
