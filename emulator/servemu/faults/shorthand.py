"""Rules in one line: what a header, a tag and the command line hold.

    status=429;retry-after=2
    cut=40
    delay=1.5
    status=504;phase=after_commit
    no-gpu-capacity;after=PT10M

The first part is an effect or a preset; `=value` sets the effect's own field (`status` of `status`,
`after_tokens` of `cut`, `seconds` of `delay`, …). Then come other fields of the effect. Dashes and
underscores are the same. Values may be percent-encoded, where they hold a `;`.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from servemu.errors import InvalidParameter
from servemu.faults.presets import expand, presets
from servemu.schemas.effects import EFFECTS
from servemu.schemas.faults import Rule, parse_rule

HEADER = "x-emulator-fault"
TAG = "emulator-fault"
MAX_LENGTH = 4096


def rule_object(text: str) -> dict[str, Any]:
    """The rule that the line says, not yet checked. Raises `InvalidParameter`."""
    first, *others = [part.strip() for part in text.split(";")]
    word, is_set, value = (part.strip() for part in first.partition("="))
    fields = dict(_field(part) for part in others if part)
    rule: dict[str, Any] = {}
    if "phase" in fields:
        rule["phase"] = fields.pop("phase")
    kind = word.replace("-", "_")
    if kind in EFFECTS:
        main = EFFECTS[kind].main
        if is_set and not main:
            raise InvalidParameter(f"The effect '{word}' takes no value, got '{value}'.")
        set_here = {main: unquote(value)} if is_set else {}
        return rule | {"effect": {"type": kind, **set_here, **fields}}
    if word in presets() and not is_set:
        return rule | {"preset": word} | ({"effect": fields} if fields else {})
    effects = ", ".join(name.replace("_", "-") for name in EFFECTS)
    raise InvalidParameter(
        f"Neither an effect nor a preset: '{first}'. Effects: {effects}. "
        f"Presets: {', '.join(presets())}."
    )


def spelt_out(given: Mapping[str, Any]) -> dict[str, Any]:
    """A rule without `preset` and `shorthand`, which stands for a rule as a line does.

    Raises `InvalidParameter`.
    """
    line = given.get("shorthand")
    if line is None:
        return expand(given)
    if not isinstance(line, str):
        raise InvalidParameter("Invalid value for field 'shorthand': Input should be a string")
    own = {key: value for key, value in given.items() if key != "shorthand"}
    try:
        said = rule_object(line)
    except InvalidParameter as error:
        raise InvalidParameter(f"Invalid value for field 'shorthand': {error.message}") from None
    if isinstance(own.get("effect"), dict):
        own["effect"] = {**said.get("effect", {}), **own["effect"]}
    return expand({**said, **own})


@lru_cache(maxsize=256)
def header_rule(text: str) -> Rule:
    """What the header asks for, for this one request. Raises `InvalidParameter`."""
    return _named(text, "header 'X-Emulator-Fault'")


def tag_rule(endpoint: str, text: str) -> Mapping[str, Any]:
    """The rule of an endpoint's tag, about this endpoint alone. Raises `InvalidParameter`."""
    parsed = _named(text, f"tag '{TAG}'").model_dump(mode="json", by_alias=True, exclude_none=True)
    return parsed | {"id": f"tag-{endpoint}", "match": parsed["match"] | {"endpoint": endpoint}}


def _named(text: str, where: str) -> Rule:
    try:
        if len(text) > MAX_LENGTH:
            raise InvalidParameter(f"At most {MAX_LENGTH} characters, got {len(text)}.")
        return parse_rule(expand(rule_object(text)))
    except InvalidParameter as error:
        raise InvalidParameter(f"Invalid value for {where}: {error.message}") from None


def _field(part: str) -> tuple[str, str]:
    name, is_set, value = part.partition("=")
    if not is_set:
        raise InvalidParameter(f"'{part}' is no field=value.")
    return name.strip().replace("-", "_"), unquote(value.strip())
