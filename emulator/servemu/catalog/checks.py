"""What each key of a catalogue table may hold, and the error that says what was wrong."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

TASKS = ("llm/v1/chat", "llm/v1/completions", "llm/v1/embeddings", "custom")

WORKLOAD_TYPES = (
    "CPU",
    "CPU_MEDIUM",
    "CPU_LARGE",
    "GPU_SMALL",
    "GPU_MEDIUM",
    "GPU_LARGE",
    "GPU_XLARGE",
    "GPU_XLARGE_8",
    "MULTIGPU_MEDIUM",
)
"""The enum of facts/control_plane §2.4."""


class CatalogInvalid(Exception):
    """A catalogue table has something it may not have. `given` None: a key is missing."""

    def __init__(self, table: str, key: str, given: object, allowed: str) -> None:
        problem = "is missing" if given is None else f"= {given!r} is not allowed"
        where = f"catalog.{table}" if table else "catalog"
        what = f"{key} {problem}" if key else problem
        super().__init__(f"{where}: {what}; allowed: {allowed}")
        self.table = table
        self.key = key
        self.given = given
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class Rule:
    """One key of a table."""

    accepts: Callable[[object], bool]
    allowed: str
    required: bool = True


def _number(value: object, at_least: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isfinite(value) and value >= at_least


def _whole(value: object) -> bool:
    return isinstance(value, int) and _number(value, 1)


def _strings(value: object) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(item, str) and item for item in value)


def _tasks(value: object) -> bool:
    return _strings(value) and isinstance(value, list) and all(item in TASKS for item in value)


def _flags(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, bool) for item in value.values())


def _one_of(names: tuple[str, ...], required: bool = True) -> Rule:
    return Rule(lambda value: value in names, " | ".join(names), required)


TEXT = Rule(lambda value: isinstance(value, str) and bool(value), "a non-empty string")
MAYBE_EMPTY = Rule(lambda value: isinstance(value, str), "a string", required=False)
MAYBE_TEXT = Rule(TEXT.accepts, TEXT.allowed, required=False)
WHOLE = Rule(_whole, "a whole number above 0")
MAYBE_WHOLE = Rule(_whole, WHOLE.allowed, required=False)
MAYBE_POSITIVE = Rule(
    lambda value: _number(value, 0) and value != 0, "a number above 0", required=False
)
AMOUNT = Rule(lambda value: _number(value, 0), "a number, 0 or above")
FLAG = Rule(lambda value: isinstance(value, bool), "true | false", required=False)

FAMILY: Mapping[str, Rule] = {
    "model_type": TEXT,
    "tasks": Rule(_tasks, "a list of " + " | ".join(TASKS)),
    "chunk": MAYBE_WHOLE,
    "unit_chunk": MAYBE_WHOLE,
    "tokens_per_unit": MAYBE_POSITIVE,
    "context_length": WHOLE,
    "max_output_tokens": MAYBE_WHOLE,
    "dimensions": MAYBE_WHOLE,
    "normalized": FLAG,
    "workload_type": _one_of(WORKLOAD_TYPES),
    "dbus_per_chunk": AMOUNT,
    "creating_seconds": AMOUNT,
    "loading_seconds": AMOUNT,
    "scale_up_seconds": AMOUNT,
    "scale_down_seconds": AMOUNT,
    "scale_decision_seconds": AMOUNT,
    "cold_start_seconds": AMOUNT,
    "capacity_wait_seconds": AMOUNT,
    "ttft_ms": AMOUNT,
    "tpot_ms": AMOUNT,
    "prefill_share": Rule(lambda value: _number(value, 0) and value <= 1, "0 to 1", required=False),  # type: ignore[operator]
    "load_factor": Rule(AMOUNT.accepts, AMOUNT.allowed, required=False),
    "input_weight": MAYBE_POSITIVE,
    "output_weight": MAYBE_POSITIVE,
    "stand_in": MAYBE_TEXT,
    "single_entity": FLAG,
    "autoscales": FLAG,
    "legacy": FLAG,
}

MODEL: Mapping[str, Rule] = {
    "family": TEXT,
    "versions": Rule(_strings, 'a list of strings such as ["1"]', required=False),
    "task": _one_of(TASKS, required=False),
    "served_name": MAYBE_TEXT,
    "chunk": MAYBE_WHOLE,
    "refusal": MAYBE_EMPTY,
    "api_types": Rule(_strings, "a list of strings", required=False),
    "signature": Rule(lambda value: isinstance(value, dict), "a table", required=False),
}

FOUNDATION_MODEL: Mapping[str, Rule] = {
    "entity": TEXT,
    "display_name": TEXT,
    "description": MAYBE_EMPTY,
    "docs": TEXT,
    "docs_anchor": MAYBE_TEXT,
    "model_class": TEXT,
    "api_types": Rule(_strings, "a list of strings"),
    "created": WHOLE,
    "capabilities": Rule(_flags, "a table of true | false", required=False),
    "input_price": MAYBE_TEXT,
    "price": MAYBE_TEXT,
}


def check_row(table: str, row: dict[str, Any], rules: Mapping[str, Rule]) -> dict[str, Any]:
    """The row of `table`, once every key and value has been found allowed.

    Raises `CatalogInvalid`.
    """
    for key, value in row.items():
        rule = rules.get(key)
        if rule is None:
            raise CatalogInvalid(table, key, value, "the keys " + ", ".join(rules))
        if not rule.accepts(value):
            raise CatalogInvalid(table, key, value, rule.allowed)
    for key, rule in rules.items():
        if rule.required and key not in row:
            raise CatalogInvalid(table, key, None, rule.allowed)
    return row
