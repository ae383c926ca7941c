"""The images: linted, and of one mind with the program and with each other. Nothing is built."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from servemu.cli.up import up
from servemu.settings import Settings

TOP = Path(__file__).parents[2]
DOCKERFILES = ("docker/Dockerfile", "docker/Dockerfile.cuda")


def instruction(dockerfile: str, name: str) -> str:
    """The last instruction of this name, its lines joined."""
    joined = (TOP / dockerfile).read_text().replace("\\\n", " ")
    found: list[str] = re.findall(rf"^{name} +(.+)$", joined, re.MULTILINE)
    return found[-1]


def compose() -> dict[str, Any]:
    """The one service of compose.yaml."""
    loaded = yaml.safe_load((TOP / "docker/compose.yaml").read_text())
    assert list(loaded["services"]) == ["servemu"]
    service: dict[str, Any] = loaded["services"]["servemu"]
    assert loaded["volumes"] == {"models": None}
    return service


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_dockerfile_is_lint_free(dockerfile: str) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, TOP / dockerfile], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_entry_point_uses_flags_that_the_command_has(dockerfile: str) -> None:
    command, subcommand, *flags = json.loads(instruction(dockerfile, "ENTRYPOINT"))
    assert (command, subcommand) == ("servemu", "up")
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    assert given == {"--host": "0.0.0.0", "--model-store": "/models"}
    known = {"--" + name.replace("_", "-") for name in inspect.signature(up).parameters}
    assert set(given) <= known


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_image_runs_as_nobody_special_on_the_default_port(dockerfile: str) -> None:
    assert instruction(dockerfile, "USER") == "10001:10001"
    assert instruction(dockerfile, "EXPOSE") == str(Settings.model_fields["port"].default)
    assert instruction(dockerfile, "VOLUME") == "/models"


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_image_and_compose_check_health_alike(dockerfile: str) -> None:
    check = json.loads(instruction(dockerfile, "HEALTHCHECK").partition("CMD ")[2])
    assert compose()["healthcheck"]["test"] == ["CMD", *check]
    compile(check[-1], "health", "exec")


def test_compose_gives_the_port_to_this_machine_only() -> None:
    service = compose()
    assert service["ports"] == ["127.0.0.1:8484:8484"]
    assert service["volumes"] == ["models:/models"]
    assert service["user"] == "10001:10001"


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_all_that_is_copied_passes_the_dockerignore(dockerfile: str) -> None:
    text = (TOP / dockerfile).read_text()
    copied = {
        name
        for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
        for name in line.split()[:-1]
    }
    sent = {line[1:] for line in (TOP / ".dockerignore").read_text().split() if line[0] == "!"}
    assert copied == sent
    assert all((TOP / name).exists() for name in copied)
