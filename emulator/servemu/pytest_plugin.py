"""The pytest plugin: fixture `serving_endpoints`, marker `fault`, verdicts of failed tests.

Every pytest run with servemu installed loads this, so it imports nothing until a test asks.
"""

import difflib
import os
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from servemu.in_pytest.workspace import ServingEndpoints

WORKSPACE: "pytest.StashKey[ServingEndpoints]" = pytest.StashKey()
FOLDERS: pytest.StashKey[set[str]] = pytest.StashKey()
"""Of the controller of a distributed run: where its workers' emulator has its state."""
OUTPUT = "servemu_folder"
MARKER = (
    "fault(what, *, must_fire=True, **fields): a failure the test is to meet: a preset or an "
    "effect, then endpoint=, operation=, times=, … of the rule. The test fails when it does not."
)
ELSEWHERE = (
    "DATABRICKS_AUTH_TYPE",
    "DATABRICKS_CLIENT_ID",
    "DATABRICKS_CLIENT_SECRET",
    "DATABRICKS_CONFIG_PROFILE",
)
"""Variables with which the SDK would look for another way in."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "servemu_engine", "engine of the emulator: synthetic or local", default="synthetic"
    )
    parser.addini("servemu_url", "URL of a running emulator; none: one is started", default="")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A misspelt fault ends the run before its first test; in a worker it fails its own test."""
    if _is_worker(config):
        return
    for item in items:
        for marker in item.iter_markers("fault"):
            refusal = _refusal(marker)
            if refusal is not None:
                raise pytest.UsageError(f"{item.nodeid}: {refusal}")


@pytest.fixture(scope="session")
def servemu_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Where the emulator of this run answers."""
    config = request.config
    given = str(config.getini("servemu_url"))
    if given:
        yield given.rstrip("/")
        return
    from servemu.in_pytest.process import shared, stop

    folder, owner = tmp_path_factory.getbasetemp(), os.getpid()
    if _is_worker(config):
        folder, owner = folder.parent, os.getppid()
        config.workeroutput[OUTPUT] = str(folder)  # type: ignore[attr-defined]
    yield shared(folder, owner, str(config.getini("servemu_engine")))
    if not _is_worker(config):
        stop(folder)


@pytest.fixture
def serving_endpoints(
    request: pytest.FixtureRequest, servemu_url: str, monkeypatch: pytest.MonkeyPatch
) -> "Iterator[ServingEndpoints]":
    """A workspace of the test's own; DATABRICKS_HOST and DATABRICKS_TOKEN point at it."""
    from servemu.in_pytest.workspace import ServingEndpoints

    workspace = ServingEndpoints(servemu_url, f"emu.{uuid.uuid4().hex}")
    monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", workspace.token)
    for name in ELSEWHERE:
        monkeypatch.delenv(name, raising=False)
    for marker in reversed(list(request.node.iter_markers("fault"))):
        what, fields = _fault_of(marker)
        workspace.fault(what, **fields)
    request.node.stash[WORKSPACE] = workspace
    yield workspace
    unfired, report = workspace.unfired(), ""
    if unfired:
        report = workspace.report()
    workspace.reset()
    if unfired:
        pytest.fail(f"never fired: {', '.join(unfired)}\n{report}", pytrace=False)


@pytest.fixture(autouse=True)
def _faults_of_marker(request: pytest.FixtureRequest) -> None:
    """The marker alone is enough."""
    if request.node.get_closest_marker("fault") is not None:
        request.getfixturevalue("serving_endpoints")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    workspace = item.stash.get(WORKSPACE, None)
    if workspace is not None and report.when == "call" and report.failed:
        from servemu.in_pytest.workspace import Refused

        try:
            report.sections.append(("servemu", workspace.report()))
        except (OSError, Refused) as error:
            report.sections.append(("servemu", f"no report: {error}"))
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object, error: object) -> None:
    """A worker of pytest-xdist is done: it says which emulator it used."""
    folder = getattr(node, "workeroutput", {}).get(OUTPUT)
    if folder is not None:
        config: pytest.Config = node.config  # type: ignore[attr-defined]
        config.stash.setdefault(FOLDERS, set()).add(folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    for folder in config.stash.get(FOLDERS, ()):
        from servemu.in_pytest.process import stop

        stop(Path(folder))


def _is_worker(config: pytest.Config) -> bool:
    """Whether this is one of pytest-xdist's processes."""
    return hasattr(config, "workerinput")


def _fault_of(marker: pytest.Mark) -> tuple[str, dict[str, object]]:
    """What to give to `ServingEndpoints.fault`."""
    [what] = marker.args
    return what, {"must_fire": True, **marker.kwargs}


def _refusal(marker: pytest.Mark) -> str | None:
    """Why the marker is no fault, with the names it may have meant."""
    from servemu.errors import InvalidParameter
    from servemu.faults.presets import presets
    from servemu.faults.shorthand import spelt_out
    from servemu.in_pytest.workspace import rule_of
    from servemu.schemas.effects import EFFECTS
    from servemu.schemas.faults import parse_rule

    if len(marker.args) != 1:
        return f"fault takes one preset or effect, got {len(marker.args)}"
    what, fields = _fault_of(marker)
    known = [*presets(), *(name.replace("_", "-") for name in EFFECTS)]
    word = str(what).partition(";")[0].partition("=")[0]
    if isinstance(what, str) and word.replace("_", "-") not in known:
        near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "see `servemu fault presets`"
        return f"no fault is called '{word}': {hint}"
    try:
        parse_rule(spelt_out(rule_of(what, fields)))
    except InvalidParameter as error:
        return error.message
    return None
