"""Finds and reads scenario files: the shipped ones by name, others by path."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from servemu.scenarios.schema import Scenario


class ScenarioInvalid(Exception):
    """A file that is no scenario; the text names file, step and field."""


def shipped() -> Mapping[str, Path]:
    """Name to file of those that come with the package."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.toml"))}


def path_of(name: str) -> Path:
    """A shipped name, else a path. Raises `ScenarioInvalid`."""
    known = shipped()
    if name in known:
        return known[name]
    path = Path(name)
    if not path.is_file():
        raise ScenarioInvalid(f"no scenario '{name}': neither a file nor one of {', '.join(known)}")
    return path


def read(path: Path) -> Scenario:
    """Raises `ScenarioInvalid`."""
    try:
        given = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ScenarioInvalid(f"{path}: {error}") from None
    return parse(given, str(path))


def parse(given: Mapping[str, Any], where: str = "scenario") -> Scenario:
    """Raises `ScenarioInvalid`, which names the first bad step and field."""
    try:
        return Scenario.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ScenarioInvalid(f"{where}: {_place(first['loc'], given)}{first['msg']}") from None


def _place(location: tuple[int | str, ...], given: Mapping[str, Any]) -> str:
    """`step 3 'the update': load.requests: `."""
    said = ""
    if len(location) > 1 and location[0] == "steps" and isinstance(location[1], int):
        step = given["steps"][location[1]]
        name = step.get("name") if isinstance(step, dict) else None
        said = f"step {location[1] + 1}" + (f" '{name}'" if name else "") + ": "
        location = location[2:]
    field = ".".join(str(part) for part in location)
    return said + (f"{field}: " if field else "")
