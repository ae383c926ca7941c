"""`external-function`: calls through a connection, to this machine only unless told else."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.service.serving import ExternalFunctionRequestHttpMethod

from servemu.clock import PausedClock
from servemu.external_functions import is_allowed
from servemu.settings import Connection, Settings
from servemu.testing import Emulator, serve

Json = dict[str, Any]
Connect = Callable[..., httpx.Client]
AssertFails = Callable[[httpx.Response, int, str, str], None]

PATH = "/api/2.0/external-function"


class Echo(BaseHTTPRequestHandler):
    """Answers what it was asked; `/moved` sends elsewhere, `/teapot` fails."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        status = {"/base/moved": 302, "/base/teapot": 418}.get(self.path, 200)
        shown = {"method": self.command, "path": self.path, "body": body}
        shown |= {name: self.headers.get(name, "") for name in ("Authorization", "X-Mine")}
        content = json.dumps(shown).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("mcp-session-id", "s-1")
        if status == 302:
            self.send_header("Location", "http://192.0.2.1/")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = _answer

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/base"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def own(upstream: str) -> Iterator[Emulator]:
    closed = "http://127.0.0.1:1"
    connections = {
        "here": Connection(host=upstream),
        "secret": Connection.model_validate({"host": upstream, "bearer_token": "t0k3n"}),
        "closed": Connection(host=closed),
        "away": Connection(host="https://api.example.com/v1"),
    }
    settings = Settings(engine="synthetic", connections=connections)
    with serve(settings, PausedClock()) as running:
        yield running


@pytest.fixture
def client(own: Emulator, connect: Connect) -> Iterator[httpx.Client]:
    with connect(own.url) as client:
        yield client


def ask(**fields: object) -> Json:
    return {"connection_name": "here", "method": "GET", "path": "/a", **fields}


def test_answer_of_the_other_side_comes_back_whole(client: httpx.Client) -> None:
    fields = {"headers": '{"X-Mine":"1","Host":"evil"}', "json": '{"a":1}', "params": '{"q":"x y"}'}
    answer = client.post(PATH, json=ask(method="POST", **fields))
    assert (answer.status_code, answer.headers["mcp-session-id"]) == (200, "s-1")
    assert answer.json() == {
        "method": "POST",
        "path": "/base/a?q=x+y",
        "body": '{"a":1}',
        "Authorization": "",
        "X-Mine": "1",
    }


def test_connection_brings_its_token_and_the_callers_stays_here(client: httpx.Client) -> None:
    shown = client.post(PATH, json=ask(connection_name="secret")).json()
    assert shown["Authorization"] == "Bearer t0k3n"


@pytest.mark.parametrize("path", ["http://192.0.2.1/a", "//192.0.2.1/a", "@192.0.2.1/a", "?q=1#f"])
def test_path_cannot_leave_the_connections_host(client: httpx.Client, path: str) -> None:
    shown = client.post(PATH, json=ask(path=path)).json()
    assert shown["path"].startswith("/base/")


def test_redirect_is_passed_on_and_not_followed(client: httpx.Client) -> None:
    answer = client.post(PATH, json=ask(path="moved"))
    assert (answer.status_code, answer.json()["path"]) == (302, "/base/moved")


def test_failure_of_the_other_side_keeps_its_status(client: httpx.Client) -> None:
    assert client.post(PATH, json=ask(path="teapot")).status_code == 418


REFUSED: dict[str, tuple[Json, int, str, str]] = {
    "unknown connection": (
        ask(connection_name="none"),
        404,
        "RESOURCE_DOES_NOT_EXIST",
        "Connection 'none' does not exist.",
    ),
    "host that is not allowed": (
        ask(connection_name="away"),
        403,
        "PERMISSION_DENIED",
        "Connection 'away' may not call host 'api.example.com'.",
    ),
    "sub domain of an address": (
        ask(sub_domain="a"),
        403,
        "PERMISSION_DENIED",
        "Connection 'here' may not call host 'a.127.0.0.1'.",
    ),
    "sub domain that is none": (
        ask(sub_domain="a/b"),
        400,
        "INVALID_PARAMETER_VALUE",
        "Invalid value for field 'sub_domain': String should match pattern "
        """'^[a-zA-Z0-9-]+(\\.[a-zA-Z0-9-]+)*$' (given: "a/b")""",
    ),
    "no path": (
        {"connection_name": "here", "method": "GET"},
        400,
        "INVALID_PARAMETER_VALUE",
        "Missing required field: path",
    ),
    "no method of HTTP": (
        ask(method="TRACE"),
        400,
        "INVALID_PARAMETER_VALUE",
        "Invalid value for field 'method': Input should be 'GET', 'POST', 'PUT', 'PATCH' or "
        "'DELETE' (given: \"TRACE\")",
    ),
    "headers are no JSON": (
        ask(headers="{"),
        400,
        "INVALID_PARAMETER_VALUE",
        "Invalid value for field 'headers': Invalid JSON: EOF while parsing an object at line 1 "
        'column 1 (given: "{")',
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_call_is_refused(assert_fails: AssertFails, client: httpx.Client, case: str) -> None:
    body, status, error_code, message = REFUSED[case]
    assert_fails(client.post(PATH, json=body), status, error_code, message)


@pytest.mark.parametrize(
    "fields", [{"connection_name": "closed"}, {"headers": '{"X-Mine":"é"}'}], ids=str
)
def test_call_that_cannot_be_made_is_a_400(client: httpx.Client, fields: Json) -> None:
    answer = client.post(PATH, json=ask(**fields))
    assert (answer.status_code, answer.json()["error_code"]) == (400, "BAD_REQUEST")
    assert answer.json()["message"].startswith("Connection '")


@pytest.mark.parametrize("case", ["unknown connection", "host that is not allowed"])
def test_refusal_says_which_setting_helps(client: httpx.Client, case: str) -> None:
    why = client.post(PATH, json=REFUSED[case][0]).headers["x-emulator-why"]
    assert "connections" in why or "external_function_hosts" in why


@pytest.mark.parametrize(
    ("host", "patterns", "allowed"),
    [
        ("localhost", (), True),
        ("127.0.0.2", (), True),
        ("::1", (), True),
        ("10.0.0.1", (), False),
        ("localhost.example.com", (), False),
        ("api.example.com", ("*.example.com",), True),
        ("example.com", ("*.example.com",), False),
    ],
)
def test_only_this_machine_is_allowed_by_itself(
    host: str, patterns: tuple[str, ...], allowed: bool
) -> None:
    assert is_allowed(host, patterns) is allowed


def test_databricks_sdk_calls_through_a_connection(own: Emulator) -> None:
    client = WorkspaceClient(host=own.url, token="emu.functions")
    answer = client.serving_endpoints.http_request(
        "here",
        ExternalFunctionRequestHttpMethod.POST,
        "/a",
        json={"b": "2"},
        headers={"X-Mine": "3"},
    )
    assert answer.status_code == 200
    assert {key: answer.json()[key] for key in ("method", "body", "X-Mine")} == {
        "method": "POST",
        "body": '{"b":"2"}',
        "X-Mine": "3",
    }
