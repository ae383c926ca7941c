"""The pytest plugin, by runs of pytest of its own."""

import socket
import subprocess
import sys
from collections.abc import Callable
from urllib.parse import urlsplit

import databricks.sdk.service.serving  # noqa: F401  # once, not anew in each run within this process
import pytest

from servemu.testing import Emulator

pytest_plugins = ["pytester"]

Run = Callable[..., pytest.RunResult]

INI = """
[pytest]
filterwarnings = error
strict_markers = true
servemu_url = {url}
"""
SDK = """
import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import {error}
from databricks.sdk.service.serving import EndpointCoreConfigInput, ServedEntityInput


def create(name):
    entity = ServedEntityInput(
        entity_name="system.ai.meta_llama_v3_1_8b_instruct",
        entity_version="3",
        max_provisioned_throughput=19000,
    )
    config = EndpointCoreConfigInput(name=name, served_entities=[entity])
    return WorkspaceClient().serving_endpoints.create(name, config=config)
"""


@pytest.fixture
def few_plugins(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Options of a run without the plugins of everything else that is installed: they cost a
    second in each process."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return ("-p", "servemu.pytest_plugin", "-p", "no:cacheprovider")


@pytest.fixture
def run(pytester: pytest.Pytester, emulator: Emulator, few_plugins: tuple[str, ...]) -> Run:
    """A run over a file with this text, in this process, against the emulator of these tests."""

    def run(text: str, *options: str) -> pytest.RunResult:
        pytester.makeini(INI.format(url=emulator.url))
        pytester.makepyfile(text)
        return pytester.runpytest_inprocess(*few_plugins, *options)

    return run


def test_import_of_the_plugin_loads_nothing_heavy() -> None:
    script = "import sys, servemu.pytest_plugin; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    roots = {name.partition(".")[0] for name in done.stdout.split()}
    assert "pytest" in roots
    assert not roots & {
        "starlette",
        "sqlalchemy",
        "torch",
        "pydantic",
        "httpx",
        "typer",
        "filelock",
    }


def test_marker_is_met_by_the_sdk_whose_variables_are_set(run: Run) -> None:
    text = (
        SDK.format(error="PermissionDenied")
        + """
@pytest.mark.fault("creator-lost-access", endpoint="llama-*", times=1)
def test_is_told(serving_endpoints):
    with pytest.raises(PermissionDenied):
        create("llama-1")
    create("llama-1")
    [rule] = serving_endpoints.faults()
    assert (rule["fired"], rule["must_fire"]) == (1, True)
    assert [entry["status"] for entry in serving_endpoints.requests()] == [403, 200]
    assert serving_endpoints.verdict()["requests"] == 2

@pytest.mark.fault("creator-lost-access", times=1)
def test_needs_no_fixture():
    with pytest.raises(PermissionDenied):
        create("llama-1")
"""
    )
    run(text).assert_outcomes(passed=2)


def test_several_markers_are_several_rules_in_the_order_they_stand(run: Run) -> None:
    text = (
        SDK.format(error="NotFound, PermissionDenied")
        + """
@pytest.mark.fault("creator-lost-access", times=1)
@pytest.mark.fault("status=404", operation="serving-endpoints.create", times=1)
def test_both(serving_endpoints):
    with pytest.raises(PermissionDenied):
        create("llama")
    with pytest.raises(NotFound):
        create("llama")
"""
    )
    run(text).assert_outcomes(passed=1)


def test_clock_moves_what_was_created(run: Run) -> None:
    text = (
        SDK.format(error="NotFound")
        + """
def test_up(serving_endpoints):
    create("llama")
    serving_endpoints.advance(60)
    state = WorkspaceClient().serving_endpoints.get("llama").state
    assert state.ready.value == "READY"
    serving_endpoints.reset()
    with pytest.raises(NotFound):
        WorkspaceClient().serving_endpoints.get("llama")
"""
    )
    run(text).assert_outcomes(passed=1)


def test_fault_that_was_not_met_fails_the_test(run: Run) -> None:
    text = """
import pytest

@pytest.mark.fault("no-gpu-capacity", id="gpus")
def test_unmet(serving_endpoints):
    pass

@pytest.mark.fault("no-gpu-capacity", must_fire=False)
def test_may_be_unmet(serving_endpoints):
    pass

def test_own(serving_endpoints):
    serving_endpoints.fault("overloaded", id="own", must_fire=True)
"""
    result = run(text)
    result.assert_outcomes(passed=3, errors=2)
    result.stdout.fnmatch_lines_random(["never fired: gpus", "never fired: own"])
    result.stdout.fnmatch_lines(["fault gpus: matched 0, fired 0"])


def test_failed_test_shows_the_verdict_and_the_last_requests(run: Run) -> None:
    text = (
        SDK.format(error="NotFound")
        + """
def test_broken(serving_endpoints):
    serving_endpoints.fault("status=418", id="tea", operation="serving-endpoints.get")
    create("llama")
    try:
        WorkspaceClient().serving_endpoints.get("llama")
    except Exception:
        assert False
"""
    )
    result = run(text)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*- servemu -*",
            "verdict: pass, 2 requests",
            "fault tea: matched 1, fired 1",
            "#1 serving-endpoints.create llama: 200",
            "#2 serving-endpoints.get llama: 418* [[]tea[]]",
        ]
    )


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        (
            '"no-gpu-capazity"',
            "no fault is called 'no-gpu-capazity': did you mean no-gpu-capacity*",
        ),
        ('"zzz"', "no fault is called 'zzz': see `servemu fault presets`"),
        ('"overloaded", times=0', "Invalid value for field 'when.times'*"),
        ('"overloaded", flavour=1', "*effect.flavour*"),
        ("", "fault takes one preset or effect, got 0"),
    ],
)
def test_fault_that_is_none_is_a_usage_error(run: Run, marker: str, said: str) -> None:
    text = f"import pytest\n@pytest.mark.fault({marker})\ndef test_it(): pass\n"
    result = run(text)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: *test_it: {said}"])


def test_run_starts_one_emulator_and_ends_it(pytester: pytest.Pytester) -> None:
    """Also a run in which every warning is an error."""
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    pytester.makepyfile("""
from pathlib import Path

def test_first(serving_endpoints):
    Path("url").write_text(serving_endpoints.url)

def test_second(serving_endpoints):
    assert Path("url").read_text() == serving_endpoints.url
    assert serving_endpoints.requests() == []
""")
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)
    assert_gone((pytester.path / "url").read_text())


def test_start_that_fails_says_why(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nservemu_engine = steam\n")
    pytester.makepyfile("def test_it(serving_endpoints): pass")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*EmulatorDidNotStart: servemu: setting engine: *"])


WORKERS = 16
SHARED = """
import os
import time
from pathlib import Path

import pytest

WORKERS = range(16)
HERE = Path(__file__).parent
BODY = {"name": "llama", "config": {"served_entities": [{
    "entity_name": "system.ai.meta_llama_v3_1_8b_instruct", "entity_version": "3",
    "max_provisioned_throughput": 19000}]}}


@pytest.mark.parametrize("number", WORKERS)
@pytest.mark.fault("overloaded", id="mine", must_fire=False)
def test_alone(serving_endpoints, number):
    # All sixteen are in here at once: none goes on before the others have come.
    ask = serving_endpoints.ask
    created = ask("POST", "/api/2.0/serving-endpoints", BODY)
    serving_endpoints.advance(1 + number)
    serving_endpoints.fault("status=503", id=f"of-{number}", operation="invocations")
    (HERE / f"in-{number}-{os.environ['PYTEST_XDIST_WORKER']}").write_text(serving_endpoints.url)
    deadline = time.monotonic() + 100
    while len(list(HERE.glob("in-*"))) < len(WORKERS) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(list(HERE.glob("in-*"))) == len(WORKERS)
    listed = ask("GET", "/api/2.0/serving-endpoints")["endpoints"]
    assert [e["id"] for e in listed if "id" in e] == [created["id"]]
    assert {rule["id"] for rule in serving_endpoints.faults()} == {"mine", f"of-{number}"}
    assert ask("GET", "/_emulator/clock")["advanced_by"] == 1 + number
    assert len(serving_endpoints.requests()) == 2
"""


def test_sixteen_workers_share_one_emulator_and_see_nothing_of_each_other(
    pytester: pytest.Pytester, few_plugins: tuple[str, ...]
) -> None:
    pytester.makepyfile(SHARED)
    options = [*few_plugins, "-p", "xdist", "-n", str(WORKERS)]
    result = pytester.runpytest_subprocess(*options, timeout=300)
    result.assert_outcomes(passed=WORKERS)
    came = list(pytester.path.glob("in-*"))
    assert len({path.name.rpartition("-")[2] for path in came}) == WORKERS
    [url] = {path.read_text() for path in came}
    assert_gone(url)


def assert_gone(url: str) -> None:
    with socket.socket() as probe:
        assert probe.connect_ex((urlsplit(url).hostname or "", urlsplit(url).port or 0)) != 0
