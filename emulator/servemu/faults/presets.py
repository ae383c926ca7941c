"""The named failures (facts/provisioned_throughput §5): each expands to a rule."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from servemu.errors import InvalidParameter


@dataclass(frozen=True, slots=True)
class Preset:
    """A failure of the real service under a speaking name."""

    name: str
    shows: str
    """What a client will see."""
    rule: Mapping[str, Any]


PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "no-gpu-capacity",
            "C1: a create stays IN_PROGRESS, then NOT_READY + UPDATE_FAILED + DEPLOYMENT_ABORTED",
            {
                "match": {"operation": "serving-endpoints.create"},
                "phase": "lifecycle",
                "effect": {"type": "no_capacity"},
            },
        ),
        Preset(
            "no-gpu-capacity-on-update",
            "C2: an update ends UPDATE_FAILED; the old config stays READY and answers",
            {
                "match": {"operation": "serving-endpoints.update_config"},
                "phase": "lifecycle",
                "effect": {"type": "no_capacity"},
            },
        ),
    )
}


def expand(given: Mapping[str, Any]) -> dict[str, Any]:
    """A rule whose `preset` is replaced by what it stands for; its own fields win.

    Raises `InvalidParameter` for a preset that does not exist.
    """
    name = given.get("preset")
    if name is None:
        return dict(given)
    preset = PRESETS.get(name) if isinstance(name, str) else None
    if preset is None:
        known = ", ".join(PRESETS)
        raise InvalidParameter(f"Unknown fault preset '{name}'. Known presets: {known}.")
    rule = dict(preset.rule) | dict(given)
    for block in ("match", "effect"):
        if isinstance(given.get(block), dict):
            rule[block] = {**preset.rule[block], **given[block]}
    return rule
