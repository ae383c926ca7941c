"""A trivial app on the emulator's own uvicorn settings: what no answer can be faster than.

Run as a process; it ends with its input.
"""

import sys

from starlette.types import Receive, Scope, Send
from tests.bench.processes import end_with_input

from servemu.server import Server, bind, url_of

BODY = b'{"padding":"' + b"x" * 1000 + b'"}'
"""About the size of one endpoint."""

HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the request, answer the same bytes."""
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": BODY})


def main() -> None:
    end_with_input()
    with bind("127.0.0.1", 0) as sock:
        ready = f"servemu ready {url_of(sock)}\n"
        Server(app, on_ready=lambda: _say(ready)).run(sockets=[sock])


def _say(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
