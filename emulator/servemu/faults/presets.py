"""The named failures out of presets.toml (facts/provisioned_throughput §5, data_plane §6)."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from servemu.errors import InvalidParameter
from servemu.schemas.effects import EFFECTS, Phase

BLOCKS = ("match", "when", "effect")


@dataclass(frozen=True, slots=True)
class Preset:
    """A failure of the real service under a speaking name."""

    name: str
    source: str
    """The row of the facts: `C1`, `D6`; or where else it stands."""
    shows: str
    """What a client will see."""
    rule: Mapping[str, Any]


@cache
def presets() -> Mapping[str, Preset]:
    """By name, in the order of the table."""
    table = tomllib.loads((Path(__file__).with_name("presets.toml")).read_text("utf-8"))
    return {
        name: Preset(name, row.pop("source"), row.pop("shows"), row) for name, row in table.items()
    }


def phase_of(preset: Preset) -> Phase:
    """Where it acts."""
    phase: Phase = preset.rule.get("phase") or EFFECTS[preset.rule["effect"]["type"]].phases[0]
    return phase


def expand(given: Mapping[str, Any]) -> dict[str, Any]:
    """A rule whose `preset` is replaced by what it stands for; its own fields win.

    Raises `InvalidParameter` for a preset that does not exist.
    """
    name = given.get("preset")
    if name is None:
        return dict(given)
    preset = presets().get(name) if isinstance(name, str) else None
    if preset is None:
        known = ", ".join(presets())
        raise InvalidParameter(f"Unknown fault preset '{name}'. Known presets: {known}.")
    rule = dict(preset.rule) | dict(given)
    for block in BLOCKS:
        own, theirs = given.get(block), preset.rule.get(block, {})
        if isinstance(own, dict) and own.get("type") in (None, theirs.get("type")):
            rule[block] = {**theirs, **own}
    return rule
