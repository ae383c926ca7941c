"""A server of few words for the remote engine, and the engine while it runs."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from servemu_engine.base import GenerateRequest, Message, Sampling
from servemu_engine.remote import RemoteEngine

QUESTION = (Message("user", "Why do lighthouses flash at night?"),)
GREEDY = GenerateRequest(messages=QUESTION, sampling=Sampling(temperature=0))
Reply = tuple[int, dict[str, str], bytes]
OK = {"Content-Type": "text/event-stream"}


def event(**choice: object) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, **choice}]}).encode() + b"\n\n"


class TerseServer:
    """Answers every POST with `reply`, and tells when its client left."""

    def __init__(self) -> None:
        self.models: Reply = (200, {}, b'{"data": [{"id": "m", "max_model_len": 64}]}')
        self.reply: Reply = (200, OK, b"")
        self.asked: list[dict[str, object]] = []
        self.endless = False
        self.left = threading.Event()
        self.url = ""


@contextmanager
def terse_server() -> Iterator[TerseServer]:
    told = TerseServer()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(*told.models)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/tokenize":
                self._send(200, {}, json.dumps({"tokens": [0] * 200}).encode())
                return
            told.asked.append(body)
            self._send(*told.reply)
            try:
                while told.endless:
                    self.wfile.write(event(delta={"content": "more "}) * 50)
            except OSError:
                told.left.set()

        def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        told.url = f"http://127.0.0.1:{server.server_port}/v1"
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield told
        told.endless = False
        server.shutdown()
        serving.join()


@asynccontextmanager
async def started(engine: RemoteEngine) -> AsyncIterator[RemoteEngine]:
    await asyncio.to_thread(engine.start)
    try:
        yield engine
    finally:
        await asyncio.to_thread(engine.close)
        await asyncio.sleep(0)
