"""Fault rules that are refused: by the name of the field, and nothing is stored."""

from typing import Any

import httpx
import pytest

from servemu.faults.presets import presets

Json = dict[str, Any]

FAULTS = "/_emulator/faults"
EFFECT = {"type": "no_capacity"}
PRESET = "no-gpu-capacity"
KNOWN = f"Known presets: {', '.join(presets())}."
REFUSED: dict[str, tuple[Json, str]] = {
    "nothing": ({}, "Missing required field: effect"),
    "unknown preset": ({"preset": "fire"}, f"Unknown fault preset 'fire'. {KNOWN}"),
    "preset is no string": ({"preset": ["a"]}, f"Unknown fault preset '['a']'. {KNOWN}"),
    "unknown effect": ({"effect": {"type": "fire"}}, "'effect.type'"),
    "unknown field": ({"preset": PRESET, "wen": {"times": 1}}, "'wen'"),
    "unknown field in match": ({"preset": PRESET, "match": {"endpont": "a"}}, "'match.endpont'"),
    "unknown field in when": ({"preset": PRESET, "when": {"time": 1}}, "'when.time'"),
    "unknown field in effect": ({"effect": EFFECT | {"for": 1}}, "'effect.for'"),
    "unknown operation": (
        {"effect": EFFECT, "match": {"operation": "jobs.create"}},
        "'match.operation'",
    ),
    "unsupported phase": ({"effect": EFFECT, "phase": "stream"}, "'phase'"),
    "no times": ({"preset": PRESET, "when": {"times": 0}}, "'when.times'"),
    "negative times": ({"preset": PRESET, "when": {"times": -1}}, "'when.times'"),
    "negative skip": ({"preset": PRESET, "when": {"skip": -1}}, "'when.skip'"),
    "more than certain": ({"preset": PRESET, "when": {"probability": 1.1}}, "'when.probability'"),
    "less than never": ({"preset": PRESET, "when": {"probability": -0.1}}, "'when.probability'"),
    "empty glob": ({"preset": PRESET, "match": {"endpoint": ""}}, "'match.endpoint'"),
    "open bracket": ({"preset": PRESET, "match": {"endpoint": "a[b"}}, "'match.endpoint'"),
    "no name has a dot": ({"preset": PRESET, "match": {"endpoint": "a.*"}}, "'match.endpoint'"),
    "header is a number": ({"preset": PRESET, "match": {"header": {"a": 1}}}, "'match.header.a'"),
    "match is a list": ({"preset": PRESET, "match": []}, "'match'"),
    "no waiting": ({"effect": EFFECT | {"after": "PT0S"}}, "'effect.after'"),
    "waiting is a word": ({"effect": EFFECT | {"after": "long"}}, "'effect.after'"),
    "waiting for ever": ({"effect": EFFECT | {"after": 1e300}}, "'effect.after'"),
    "expired already": ({"preset": PRESET, "expires_in": -1}, "'expires_in'"),
    "id with a slash": ({"preset": PRESET, "id": "a/b"}, "'id'"),
    "empty id": ({"preset": PRESET, "id": ""}, "'id'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_rule_is_refused_by_the_name_of_its_field_and_not_stored(
    workspace: httpx.Client, case: str
) -> None:
    body, named = REFUSED[case]
    answer = workspace.post(FAULTS, json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    message = answer.json()["message"]
    assert message == named or message.startswith(f"Invalid value for field {named}: ")
    assert workspace.get(FAULTS).json() == {"faults": []}
