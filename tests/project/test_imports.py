"""What an import costs: torch and Alembic come only when they are used."""

import json
import subprocess
import sys

import pytest

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
