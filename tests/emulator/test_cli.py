"""The `servemu` command: the ready line, signals, refused starts, and asking a running emulator."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from servemu import __version__
from servemu.cli.commands import app
from servemu.clock import PausedClock
from servemu.settings import Settings
from servemu.testing import Emulator, serve

Json = dict[str, Any]
Connect = Callable[..., httpx.Client]
Run = Callable[..., Result]

B = "/api/2.0/serving-endpoints"
CLOCK = "/_emulator/clock/advance"


def rows(table: str) -> list[list[str]]:
    """The cells of a printed table, without headings and lines."""
    lines = [line.strip() for line in table.splitlines() if line.strip()]
    return [re.split(r"\s{2,}", line) for line in lines[2:]]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """The emulator that the commands ask; its model store is empty."""
    store = tmp_path_factory.mktemp("store")
    with serve(Settings(engine="synthetic", model_store=store), PausedClock()) as running:
        yield running


@pytest.fixture
def run() -> Run:
    """Runs a command line in this process."""

    def run(*arguments: object, **env: str) -> Result:
        return CliRunner().invoke(
            app, [str(argument) for argument in arguments], env={"COLUMNS": "200", **env}
        )

    return run


@pytest.fixture
def ask(run: Run, own: Emulator, request: pytest.FixtureRequest) -> Run:
    """Runs a command against the emulator, in this test's own workspace."""
    token = f"emu.{request.node.name}"

    def ask(*arguments: object) -> Result:
        return run(*arguments, "--url", own.url, "--token", token)

    return ask


@pytest.fixture
def client(
    own: Emulator, connect: Connect, request: pytest.FixtureRequest
) -> Iterator[httpx.Client]:
    """Plain HTTP in the workspace of `ask`."""
    with connect(own.url, f"emu.{request.node.name}") as client:
        yield client


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ready_line_is_alone_on_stdout_and_signals_end_with_0(
    connect: Connect, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "servemu", "up", "--engine", "synthetic", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            assert running.stdout is not None and running.stderr is not None
            ready = running.stdout.readline()
            assert re.fullmatch(r"servemu ready http://127\.0\.0\.1:[0-9]+\n", ready)
            with connect(ready.split()[-1]) as client:
                assert client.get("/_emulator/health").status_code == 200
                running.send_signal(number)
                output = running.communicate()
        finally:
            running.kill()
    assert (running.returncode, output) == (0, ("", ""))


def test_taken_port_is_refused(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run("up", "--engine", "synthetic", "--port", port)
    message = f"servemu: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    assert (refused.exit_code, refused.stdout, refused.stderr) == (2, "", message)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--port", 70000), "setting port: Input should be less than or equal to 65535"),
        (("--speedup", 0), "setting speedup: Input should be greater than 0"),
        (("--engine", "cloud"), "setting engine: Input should be 'local', 'synthetic' or 'remote'"),
        (("--auth", "none"), "setting auth: Input should be 'open' or 'strict'"),
        (("--config", "gone.toml"), "config gone.toml: [Errno 2] No such file or directory: …"),
        (("--host", "a..b"), "cannot listen on a..b:0: …"),
        (("--database", "no/folder/a.db"), "Cannot use the database no/folder/a.db: the folder …"),
        (("--database", "nosql://a"), "Cannot use the database nosql://a: its driver is not …"),
    ],
    ids=str,
)
def test_bad_flag_is_refused_in_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: tuple[str, str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = run("up", "--engine", "synthetic", "--port", 0, *flags)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert_line(refused.stderr, message)
    assert list(tmp_path.iterdir()) == []


def assert_line(stderr: str, message: str) -> None:
    """One line, which begins as `message` does up to its ellipsis."""
    start, cut, _ = message.partition("…")
    assert stderr.startswith(f"servemu: {start}") and stderr.count("\n") == 1
    assert cut or stderr == f"servemu: {message}\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"port = ", "config servemu.toml: Invalid value …"),
        (b'host = "\xff"', "config servemu.toml: 'utf-8' codec can't decode byte 0xff …"),
        (b"prt = 1", "setting prt: Extra inputs are not permitted"),
        (b'port = "a"', "setting port: Input should be a valid integer…"),
        (b"catalog = 1", "setting catalog: Input should be a valid dictionary"),
        (
            b"[catalog.families.llama-8b]\nchunk = -1",
            "catalog.families.llama-8b: chunk = -1 is not allowed; allowed: a whole number above 0",
        ),
        (
            b'[catalog.models."a.b.c"]\nfamily = "none"',
            "catalog.models.\"a.b.c\": family = 'none' is not allowed; allowed: …",
        ),
    ],
)
def test_bad_config_is_refused_in_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("servemu.toml").write_bytes(content)
    flags = () if b"port" in content else ("--port", 0)
    refused = run("up", "--engine", "synthetic", "--config", "servemu.toml", *flags)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert_line(refused.stderr, message)


@pytest.mark.parametrize(("name", "value"), [("SERVEMU_CATALOG", "{"), ("SERVEMU_PORT", "a")])
def test_bad_variable_is_refused_in_one_line(run: Run, name: str, value: str) -> None:
    refused = run("up", "--engine", "synthetic", **{name: value})
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert_line(refused.stderr, "setting…")


def test_corrupt_database_is_refused_and_left_as_it_was(run: Run, tmp_path: Path) -> None:
    database = tmp_path / "a.db"
    database.write_bytes(b"this was somebody's letter")
    refused = run("up", "--engine", "synthetic", "--port", 0, "--database", database)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert_line(refused.stderr, f"The database {database} is not a SQLite database. …")
    assert database.read_bytes() == b"this was somebody's letter"


def test_version_is_printed(run: Run) -> None:
    shown = run("--version")
    assert (shown.exit_code, shown.stdout) == (0, f"servemu {__version__}\n")


def test_status_shows_health(ask: Run, client: httpx.Client) -> None:
    shown = ask("status")
    lines = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines())
    lines.pop("uptime_seconds")
    assert lines == {
        "status": "ok",
        "version": __version__,
        "engine": "synthetic",
        "database": ":memory:",
        "endpoints": "0",
        "speedup": "60.0",
        "seed": "None",
        "event_log_hash": client.get("/_emulator/events/hash").json()["hash"],
    }
    as_json = json.loads(ask("status", "--json").stdout)
    assert as_json.keys() == {
        *client.get("/_emulator/health").json(),
        "seed",
        "event_log_hash",
    }


def test_endpoints_are_shown_with_the_labels_of_the_workspace_page(
    ask: Run, client: httpx.Client, entity: Callable[[], Json]
) -> None:
    config = {"served_entities": [entity()]}
    for name in ("up", "stale"):
        client.post(B, json={"name": name, "config": config})
    client.post(CLOCK, json={"seconds": 1.5})
    client.post("/_emulator/faults", json={"effect": {"type": "no_capacity"}, "when": {"times": 2}})
    client.put(f"{B}/stale/config", json=config)
    client.post(B, json={"name": "failed", "config": config})
    client.post(CLOCK, json={"seconds": 29})
    client.post(B, json={"name": "new", "config": config})
    client.put(f"{B}/up/config", json=config)
    serves = "ml.llm-catalog.foundation-model/3"
    assert rows(ask("endpoints").stdout) == [
        ["stale", "Ready (Update failed)", "llm/v1/chat", serves],
        ["up", "Ready (Updating)", "llm/v1/chat", serves],
        ["failed", "Not ready (Update failed)", "llm/v1/chat"],
        ["new", "Not ready (Updating)", "llm/v1/chat"],
    ]


def test_endpoints_with_all_show_pay_per_token_too(ask: Run, client: httpx.Client) -> None:
    listed = client.get(B).json()["endpoints"]
    shown = [row[0] for row in rows(ask("endpoints", "--all").stdout)]
    assert shown == [endpoint["name"] for endpoint in listed]
    assert json.loads(ask("endpoints", "--all", "--json").stdout) == {"endpoints": listed}
    assert json.loads(ask("endpoints", "--json").stdout) == {"endpoints": []}


def test_fault_is_added_listed_and_removed(ask: Run, client: httpx.Client) -> None:
    flags = ("--endpoint", "llama-*", "--times", 2, "--skip", 1, "--after", "PT5M")
    rule_id = ask("fault", "add", "no-gpu-capacity", *flags).stdout.strip()
    [rule] = client.get("/_emulator/faults").json()["faults"]
    assert (rule["id"], rule["match"]["endpoint"]) == (rule_id, "llama-*")
    assert (rule["when"]["times"], rule["when"]["skip"]) == (2, 1)
    assert rule["effect"] == {"type": "no_capacity", "after": "PT300S"}
    assert rows(ask("fault", "list").stdout) == [
        [rule_id, "serving-endpoints.create*", "llama-*", "no_capacity", "0", "0", "2"]
    ]
    assert json.loads(ask("fault", "list", "--json").stdout) == {"faults": [rule]}
    removed = ask("fault", "remove", rule_id)
    assert (removed.exit_code, removed.output) == (0, "")
    assert client.get("/_emulator/faults").json() == {"faults": []}


def test_all_faults_are_removed_together(ask: Run, client: httpx.Client) -> None:
    for preset in ("no-gpu-capacity", "no-gpu-capacity-on-update"):
        assert ask("fault", "add", preset).exit_code == 0
    assert ask("fault", "remove", "--all").exit_code == 0
    assert client.get("/_emulator/faults").json() == {"faults": []}


def test_presets_are_shown(ask: Run, client: httpx.Client) -> None:
    presets = client.get("/_emulator/presets").json()
    shown = [row[0] for row in rows(ask("fault", "presets").stdout)]
    assert shown == [preset["name"] for preset in presets["presets"]]
    assert json.loads(ask("fault", "presets", "--json").stdout) == presets


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            ("fault", "add", "fire"),
            "Invalid value for field 'shorthand': Neither an effect nor a preset: 'fire'. …",
        ),
        (
            ("fault", "add", "no-gpu-capacity", "--endpoint", "a["),
            "Invalid value for field 'match.endpoint': …",
        ),
        (("fault", "remove", "none"), "Fault rule with id 'none' does not exist."),
    ],
)
def test_refusal_of_the_emulator_is_one_line_and_1(
    ask: Run, command: tuple[str, ...], message: str
) -> None:
    refused = ask(*command)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert_line(refused.stderr, message)


def test_fault_remove_wants_an_id_or_all(ask: Run) -> None:
    for refused in (ask("fault", "remove"), ask("fault", "remove", "a", "--all")):
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert "give either the id of a rule or --all" in refused.stderr


def test_models_in_memory_are_listed(
    ask: Run, client: httpx.Client, entity: Callable[[], Json]
) -> None:
    client.post(B, json={"name": "up", "config": {"served_entities": [entity()]}})
    client.post(CLOCK, json={"seconds": 1.5})
    [row] = rows(ask("models", "list").stdout)
    assert (row[0], row[-1]) == ("smollm2-135m-instruct", "resident")
    assert (
        json.loads(ask("models", "list", "--json").stdout) == client.get("/_emulator/models").json()
    )


COMMANDS = [
    ("status",),
    ("endpoints",),
    ("fault", "list"),
    ("fault", "presets"),
    ("fault", "add", "no-gpu-capacity"),
    ("fault", "remove", "--all"),
    ("models", "list"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_unreachable_emulator_is_one_line_and_1(run: Run, command: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    refused = run(*command, "--url", url)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert_line(refused.stderr, f"no emulator answers at {url} (…")


def test_other_server_is_one_line_and_1(run: Run) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        url = f"http://127.0.0.1:{other.server_port}"
        answering = threading.Thread(target=other.handle_request)
        answering.start()
        refused = run("status", "--url", url)
        answering.join()
    message = f"servemu: what answers at {url} is no emulator\n"
    assert (refused.exit_code, refused.stdout, refused.stderr[-len(message) :]) == (1, "", message)


@pytest.mark.parametrize("url", ["localhost:8484", "http://[", "http://a:b", ""])
def test_bad_url_is_one_line_and_1(run: Run, url: str) -> None:
    refused = run("status", "--url", url)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert_line(refused.stderr, f"no emulator answers at {url} (…")


def test_url_and_token_come_from_the_environment(run: Run, own: Emulator, connect: Connect) -> None:
    env = {"SERVEMU_URL": own.url, "DATABRICKS_TOKEN": "emu.from-env"}
    rule_id = run("fault", "add", "no-gpu-capacity", **env).stdout.strip()
    with connect(own.url, "emu.from-env") as client:
        [rule] = client.get("/_emulator/faults").json()["faults"]
    assert rule["id"] == rule_id
