"""The GitHub Action: its shell steps, run here as a runner would."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

Json = dict[str, Any]
Run = Callable[..., "subprocess.CompletedProcess[str]"]

ACTION: Json = yaml.safe_load((Path(__file__).parents[2] / "action.yml").read_text())
STEPS: dict[str, Json] = {step["id"]: step for step in ACTION["runs"]["steps"]}
FAILING = 'test -n "$DATABRICKS_TOKEN"; servemu endpoints; exit 3'


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a step. What it wrote to GITHUB_ENV is there for the next ones."""

    def run(step: str, **given: str) -> "subprocess.CompletedProcess[str]":
        assert set(STEPS[step].get("env", {})) == set(given)
        files = {
            f"GITHUB_{name}": str(tmp_path / name) for name in ("ENV", "OUTPUT", "STEP_SUMMARY")
        }
        (tmp_path / "ENV").touch()
        kept = dict(line.split("=", 1) for line in (tmp_path / "ENV").read_text().splitlines())
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = {"PATH": path, "RUNNER_TEMP": str(tmp_path), **files, **kept, **given}
        script = tmp_path / f"{step}.sh"
        script.write_text(STEPS[step]["run"])
        # GitHub's own way to run `shell: bash`.
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)

    return run


def test_emulator_is_up_for_the_command_whose_verdict_is_in_the_summary(
    run: Run, tmp_path: Path
) -> None:
    started = run("start", ENGINE="synthetic", SPEEDUP="600", ARGS="--seed 3 --clock paused")
    assert started.returncode == 0, started.stderr
    url = (tmp_path / "OUTPUT").read_text().removeprefix("url=").strip()
    assert httpx.get(f"{url}/_emulator/health").json()["speedup"] == 600
    assert f"DATABRICKS_HOST={url}\n" in (tmp_path / "ENV").read_text()
    played = run("scenario", SCENARIO="update-lost")
    assert (played.returncode, "scenario: passed" in played.stdout) == (0, True), played.stderr
    done = run("run", RUN=FAILING)
    assert done.returncode == 3, done.stderr
    assert "verdict: pass, 1 requests" in (tmp_path / "STEP_SUMMARY").read_text()


def test_start_that_fails_says_why(run: Run) -> None:
    started = run("start", ENGINE="steam", SPEEDUP="60", ARGS="")
    assert started.returncode == 1
    assert "setting engine: Input should be 'local', 'synthetic' or 'remote'" in started.stderr


@pytest.mark.parametrize(
    ("version", "engine", "asked"),
    [
        ("servemu==0.1.0", "synthetic", "servemu==0.1.0"),
        ("servemu>=0.1", "local", "servemu[models]>=0.1"),
        ("/actions/servemu", "local", "/actions/servemu[models]"),
    ],
)
def test_install_asks_pip_for_the_version(
    run: Run, monkeypatch: pytest.MonkeyPatch, version: str, engine: str, asked: str
) -> None:
    script = 'python() { echo "$@"; }\n' + STEPS["install"]["run"]
    monkeypatch.setitem(STEPS["install"], "run", script)
    done = run("install", VERSION=version, ENGINE=engine)
    assert done.stdout.strip() == f"-m pip install --quiet {asked}"


def test_inputs_reach_the_shell_as_variables_alone() -> None:
    """Text of a caller between the lines of a script would be run."""
    assert not [name for name, step in STEPS.items() if "${{" in step["run"]]
