"""What an import and a start cost: what is heavy or seldom comes only when it is used."""

import json
import re
import subprocess
import sys
from inspect import iscoroutinefunction
from pathlib import Path
from pkgutil import iter_modules
from urllib.request import Request, urlopen

import pytest

import servemu.schemas
from servemu.app import ROUTES
from servemu.routes.late import viewed

PRINT_MODULES = "import json, sys; print(json.dumps(sorted(sys.modules)))"


def loaded_by(*modules: str) -> set[str]:
    """All modules of a fresh interpreter after these imports."""
    script = f"import {', '.join(modules)}; {PRINT_MODULES}"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    return set(json.loads(done.stdout))


def test_emulator_without_models_loads_neither_torch_nor_transformers_nor_alembic() -> None:
    loaded = loaded_by("servemu.app", "servemu.wiring", "servemu.cli", "servemu.testing")
    assert {"servemu.app", "starlette", "sqlalchemy"} <= loaded
    assert not loaded & {"torch", "transformers", "accelerate", "alembic", "numpy", "openai"}
    assert not loaded & {"prometheus_client", "servemu.openapi"}


@pytest.mark.parametrize("package", ["servemu", "servemu_state", "servemu_engine"])
def test_package_alone_loads_nothing_but_the_standard_library(package: str) -> None:
    roots = {name.partition(".")[0] for name in loaded_by(package) - loaded_by("json")}
    assert roots - sys.stdlib_module_names == {package}


def test_command_line_loads_no_server_until_it_is_started() -> None:
    assert not loaded_by("servemu.cli") & {"starlette", "sqlalchemy", "uvicorn", "pydantic", "rich"}


STARTED = (
    "servemu.routes.endpoints",  # the first answer's own
    "servemu_state.database",
    "uvicorn",
)
LATER = {
    "alembic",
    "httpx",
    "numpy",
    "openai",
    "prometheus_client",
    "rich",
    "sqlalchemy.orm",
    "torch",
    "transformers",
    "yaml",
    "servemu.answering",
    "servemu.cli.commands",
    "servemu.lifecycle.configs",
    "servemu.openapi",
    "servemu.routes.openai",
    "servemu.routes.registry",
    "servemu.scenarios",
    "servemu.schemas.chat",
    "servemu.schemas.endpoints",
    "servemu.schemas.responses",
    "servemu.schemas.tracking",
    "servemu.snapshots",
    "servemu.verdict",
    "servemu_engine.synthetic",
    "servemu_engine.weights",
}
"""What no start and no first answer waits for."""


def test_start_and_first_answer_load_only_what_they_need(tmp_path: Path) -> None:
    told = tmp_path / "imports"
    up = ["up", "--engine", "synthetic", "--port", "0"]
    with told.open("w") as stderr:
        server = subprocess.Popen(
            [sys.executable, "-v", "-m", "servemu", *up],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    with server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1]
            asked = Request(
                url + "/api/2.0/serving-endpoints", headers={"Authorization": "Bearer x"}
            )
            with urlopen(asked) as answer:
                assert json.load(answer)["endpoints"]
        finally:
            server.terminate()
    loaded = set(re.findall("^import '(.+?)'", told.read_text(), re.MULTILINE))
    assert set(STARTED) <= loaded
    assert loaded & LATER == set()


def test_no_model_of_a_body_is_built_before_it_is_sent() -> None:
    schemas = [f"servemu.schemas.{found.name}" for found in iter_modules(servemu.schemas.__path__)]
    script = f"""
import json
from importlib import import_module
from pydantic import BaseModel
def models(base):
    return [base, *(one for sub in base.__subclasses__() for one in models(sub))]
for name in {schemas}: import_module(name)
ours = [one for one in models(BaseModel) if one.__module__.startswith("servemu.schemas.")]
built = [one.__qualname__ for one in ours if one.__pydantic_complete__]
print(json.dumps([len(ours), built]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    number, built = json.loads(done.stdout)
    assert number > 100
    assert built == []


def test_every_route_names_a_view_that_is_there() -> None:
    assert all(iscoroutinefunction(viewed(route.endpoint)) for route in ROUTES)
