"""The outermost middleware: watches a request and its answer go by, for the journal.

What only the inside knows it finds in the request's scope when all is over: `principal` and
`request_id` (identity), `endpoint_name` (whoever learns it first), `shown_state` (what an answer
showed of an endpoint), `fault` = (rule id, phase), `exchange` (metering).
"""

import json
import zlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from servemu.entry import Entry
from servemu.journal import Journal, filled, shown_query

OWN = "/_emulator"
MAX_AGENT = 200
MAX_ERROR = 64 * 1024
"""Bytes of an error's body that are looked at for its `error_code`."""


class Journalling:
    """Enters every request of the emulated API; `/_emulator` and the console are left out."""

    def __init__(self, app: ASGIApp, journal: Journal) -> None:
        self._app = app
        self._journal = journal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/" or scope["path"].startswith(OWN):
            await self._app(scope, receive, send)
            return
        entry = _begun(scope, self._journal)
        watch = Watch(self._journal, entry, scope, receive, send)
        try:
            await self._app(scope, watch.receive, watch.send)
        finally:
            watch.end(None)


class Watch:
    """One request while it runs; entered once."""

    def __init__(
        self, journal: Journal, entry: Entry, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._journal = journal
        self._entry = entry
        self._scope = scope
        self._receive = receive
        self._send = send
        self._status: int | None = None
        self._is_stream = False
        self._over = False

    async def receive(self) -> Message:
        message = await self._receive()
        body: bytes = message.get("body", b"")
        if body:
            self._entry.body = zlib.crc32(body, self._entry.body)
            self._entry.bytes_in += len(body)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begin(message)
        elif message["type"] == "http.response.body":
            self._take(message.get("body", b""))
            if not message.get("more_body", False):
                self.end(self._status)  # whoever has seen the end of the answer finds it entered
        await self._send(message)

    def end(self, status: int | None) -> None:
        """It is over; only the first time counts. `status` None: nobody got a whole answer."""
        if self._over or "principal" not in self._scope:
            return
        self._over = True
        self._entry.status = status
        workspace = self._scope["principal"].workspace
        self._journal.record(workspace, filled(self._entry, self._scope))

    def _begin(self, message: Message) -> None:
        entry = self._entry
        self._status = message["status"]
        headers = {name.lower(): value for name, value in message["headers"]}
        fault = headers.get(b"x-emulator-fault")
        if fault is not None:
            entry.fault = fault.decode("latin-1")
        entry.entity = headers.get(b"served-model-name", b"").decode("latin-1")
        entry.retry_after = headers.get(b"retry-after", b"").decode("latin-1")
        entry.should_retry = headers.get(b"x-should-retry", b"").decode("latin-1")
        self._is_stream = headers.get(b"content-type", b"").startswith(b"text/event-stream")

    def _take(self, body: bytes) -> None:
        entry = self._entry
        if not body:
            return
        if self._is_stream and entry.first_byte is None:
            entry.first_byte = self._journal.clock.monotonic()
        if not entry.bytes_out and self._status is not None and self._status >= 400:
            entry.error_code = error_code(body)
        entry.bytes_out += len(body)


def error_code(body: bytes) -> str:
    """`error_code` of an error body; empty where it has none."""
    if len(body) > MAX_ERROR:
        return ""
    try:
        told = json.loads(body)
    except ValueError:
        return ""
    return str(told.get("error_code", "")) if isinstance(told, dict) else ""


def _begun(scope: Scope, journal: Journal) -> Entry:
    agent, retry = b"", None
    for name, value in scope["headers"]:
        if name == b"user-agent":
            agent = value
        elif name == b"x-stainless-retry-count" and value.isdigit():
            retry = int(value[:9])
    return Entry(
        started=journal.clock.monotonic(),
        real_time=journal.clock.now(),
        method=scope["method"],
        path=scope["path"],
        query=shown_query(scope["query_string"]),
        user_agent=agent[:MAX_AGENT].decode("latin-1"),
        client_retry=retry,
    )
