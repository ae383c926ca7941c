"""From a config as it was asked for to one that can be deployed: checks, and the defaults.

Rules: facts/control_plane §2.3, §2.4, §4, facts/provisioned_throughput §2. Texts that are not
quoted there are a GUESS after the same pattern.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from servemu.catalog import CatalogModel, ThroughputInvalid, check_entity_count
from servemu.errors import InvalidParameter
from servemu.lifecycle.entities import Drafting, draft_entity, model_of
from servemu.lifecycle.kinds import is_external, latest
from servemu.lifecycle.transitions import Config, fresh
from servemu.schemas.endpoints import AutoCaptureInput, ConfigInput, ServedEntityInput
from servemu_state.records import Endpoint, JsonObject, Route, ServedEntity

NAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9])?")
ENTITY_NAME = re.compile(r"[a-zA-Z0-9_-]+")
"""DOC (databricks-sdk `ServedEntityInput.name`); it is a part of paths."""
RESERVED_PREFIX = "databricks-"
MAX_ENTITIES = 15
"""Documented 10, observed 15 (databricks-sdk-py issue 1496)."""


def check_name(name: str) -> None:
    """Raises `InvalidParameter` (the real text; reserved prefix: rule DOC, text GUESS)."""
    if NAME.fullmatch(name) is None:
        raise InvalidParameter(
            "Endpoint name must be maximum 63 characters, and alphanumeric with hyphens and "
            "underscores allowed in between."
        )
    if name.startswith(RESERVED_PREFIX):
        raise InvalidParameter(
            f"Endpoint name '{name}' must not start with the reserved prefix '{RESERVED_PREFIX}'."
        )


def draft_config(asked: ConfigInput, drafting: Drafting) -> Config:
    """Of a new endpoint. Raises `InvalidParameter`, `ModelNotFound`."""
    entities, task = _entities(asked.entities, drafting)
    routes = _routes(asked, [entity.name for entity in entities])
    auto_capture = _auto_capture(asked.auto_capture_config, None, drafting.endpoint)
    return Config(entities, routes, task, auto_capture)


def draft_update(asked: ConfigInput, endpoint: Endpoint, drafting: Drafting) -> Config:
    """Of an endpoint that is there. What is left out stays as it is, so that an update of the
    traffic or of the inference table alone keeps the entities (facts/control_plane §2.3, §3).

    Raises `InvalidParameter`, `ModelNotFound`.
    """
    before = endpoint.settings.get("auto_capture_config")
    auto_capture = _auto_capture(asked.auto_capture_config, before, endpoint.name)
    keeps = asked.served_entities is None and asked.served_models is None
    changes = asked.traffic_config is not None or asked.auto_capture_config is not None
    if keeps and changes and endpoint.active is not None:
        kept = fresh(endpoint.active, drafting.now)
        names = [entity.name for entity in kept.entities]
        routes = kept.routes if asked.traffic_config is None else _routes(asked, names)
        return replace(kept, routes=routes, auto_capture=auto_capture)
    entities, task = _entities(asked.entities, drafting)
    _check_kind(entities, endpoint)
    routes = _routes(asked, [entity.name for entity in entities])
    return Config(entities, routes, task, auto_capture)


def _entities(
    asked: Sequence[ServedEntityInput], drafting: Drafting
) -> tuple[tuple[ServedEntity, ...], str]:
    """The entities, and the task that they share."""
    if not asked:
        raise InvalidParameter("At least one served entity must be specified.")
    if len(asked) > MAX_ENTITIES:
        raise InvalidParameter(
            f"At most {MAX_ENTITIES} served entities are allowed, got {len(asked)}."
        )
    models = [model_of(entity, drafting) for entity in asked]
    hosted = [model for model in models if model is not None]
    if len(hosted) not in (0, len(models)):  # rule DOC, text GUESS
        raise InvalidParameter(
            "External models cannot be served together with other models on one endpoint."
        )
    try:
        check_entity_count(hosted)
        pairs = zip(asked, models, strict=True)
        entities = tuple(draft_entity(entity, model, drafting) for entity, model in pairs)
    except ThroughputInvalid as error:
        why = {} if error.why is None else {"X-Emulator-Why": error.why}
        raise InvalidParameter(error.message, why) from None
    _check_names(entities)
    return entities, _task(asked, hosted)


def _check_names(entities: Sequence[ServedEntity]) -> None:
    for name, count in Counter(entity.name for entity in entities).items():
        if ENTITY_NAME.fullmatch(name) is None:
            raise InvalidParameter(
                "Served entity name must be alphanumeric with hyphens and underscores allowed, "
                f"got '{name}'."
            )
        if count > 1:
            raise InvalidParameter(f"Served entity names must be unique, '{name}' is given twice.")


def _check_kind(entities: Sequence[ServedEntity], endpoint: Endpoint) -> None:
    """Rule DOC (databricks-sdk `ServedEntityInput.external_model`), texts GUESS."""
    before = latest(endpoint)
    if before is None:
        return
    was, will = is_external(before.entities[0]), is_external(entities[0])
    if was and not will:
        raise InvalidParameter(
            "An endpoint with an external model cannot be updated to one without."
        )
    if will and not was:
        raise InvalidParameter(
            "An endpoint that was created without an external model cannot be updated to one with."
        )


def _routes(asked: ConfigInput, names: list[str]) -> tuple[Route, ...]:
    """One entity gets all traffic; several need to be told (facts/control_plane §2.4)."""
    given = () if asked.traffic_config is None else asked.traffic_config.routes
    if not given:
        if len(names) > 1:
            raise InvalidParameter(
                "traffic_config must be specified for more than one served entity."
            )
        return (Route(names[0], 100),)
    for route in given:
        if route.target is None:
            raise InvalidParameter(
                "Missing required field: traffic_config.routes.served_entity_name"
            )
        if route.target not in names:
            raise InvalidParameter(
                f"Traffic route names unknown served entity '{route.target}'. "
                f"Served entities: {', '.join(names)}."
            )
    total = sum(route.traffic_percentage for route in given)
    if total != 100:
        raise InvalidParameter(f"The traffic percentages must sum to 100, got {total}.")
    return tuple(Route(route.target or "", route.traffic_percentage) for route in given)


def _task(asked: Sequence[ServedEntityInput], hosted: Sequence[CatalogModel]) -> str:
    external = [entity.external_model.task for entity in asked if entity.external_model]
    tasks = {model.task for model in hosted}.union(external)
    if len(tasks) > 1:
        raise InvalidParameter(
            f"All served entities must have the same task, got {', '.join(sorted(tasks))}."
        )
    return tasks.pop()


def _auto_capture(
    asked: AutoCaptureInput | None, before: JsonObject | None, endpoint: str
) -> JsonObject | None:
    """The legacy inference table: left out keeps it, and it can only be off by now.

    The text about the deprecation is real; that its place is immutable: rule of the docstrings
    (facts/control_plane §2.3), text GUESS.
    """
    if asked is None:
        return before
    if asked.enabled:
        raise InvalidParameter(
            "Legacy inference tables have been deprecated. The 'auto_capture_config' field can "
            "only be used with 'enabled=false'. Please use AI Gateway inference tables instead."
        )
    given = asked.shown()
    for key in ("catalog_name", "schema_name", "table_name_prefix"):
        if before is not None and key in given and before.get(key) not in (None, given[key]):
            raise InvalidParameter(
                f"auto_capture_config.{key} cannot be changed from '{before[key]}' to "
                f"'{given[key]}'."
            )
    return {"table_name_prefix": endpoint, **(before or {}), **given}
