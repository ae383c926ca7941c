"""From a config as it was asked for to one that can be deployed: checks, and the defaults.

Rules: facts/control_plane §2.3, §2.4, §4, facts/provisioned_throughput §2. Texts that are not
quoted there are a GUESS after the same pattern.
"""

import re
from collections import Counter
from dataclasses import dataclass

from servemu.catalog import (
    Catalog,
    CatalogModel,
    ThroughputInvalid,
    ThroughputRequest,
    check_entity_count,
    dbus,
    throughput_band,
)
from servemu.errors import InvalidParameter, ModelNotFound
from servemu.lifecycle.timeline import CREATING, MESSAGES
from servemu.lifecycle.transitions import Config
from servemu.schemas.endpoints import ConfigInput, ServedEntityInput
from servemu_state.records import EntityState, Route, ServedEntity

NAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9])?")
ENTITY_NAME = re.compile(r"[a-zA-Z0-9_-]+")
"""DOC (databricks-sdk `ServedEntityInput.name`); it is a part of paths."""
RESERVED_PREFIX = "databricks-"
MAX_ENTITIES = 15
"""Documented 10, observed 15 (databricks-sdk-py issue 1496)."""
DEFAULT_WORKLOAD_SIZE = "Small"
DEFAULT_WORKLOAD_TYPE = "CPU"


@dataclass(frozen=True, slots=True)
class Drafting:
    """What a config is checked against."""

    catalog: Catalog
    creator: str
    workspace: str
    now: float
    strict_grid: bool


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


def find_model(catalog: Catalog, name: str, version: str) -> CatalogModel:
    """The registered model. Raises `ModelNotFound` for the name, then for the version."""
    model = catalog.model(name)
    if model is None:
        raise ModelNotFound(name)
    if version not in model.versions:
        raise ModelNotFound(name, version)
    return model


def draft_config(asked: ConfigInput, drafting: Drafting) -> Config:
    """Raises `InvalidParameter`, `ModelNotFound`."""
    if not asked.entities:
        raise InvalidParameter("At least one served entity must be specified.")
    if len(asked.entities) > MAX_ENTITIES:
        raise InvalidParameter(
            f"At most {MAX_ENTITIES} served entities are allowed, got {len(asked.entities)}."
        )
    models = [_model_of(entity, drafting.catalog) for entity in asked.entities]
    pairs = list(zip(asked.entities, models, strict=True))
    try:
        check_entity_count(models)
        entities = tuple(_entity(entity, model, drafting) for entity, model in pairs)
    except ThroughputInvalid as error:
        raise InvalidParameter(error.message) from None
    names = [entity.name for entity in entities]
    for name in names:
        if ENTITY_NAME.fullmatch(name) is None:
            raise InvalidParameter(
                "Served entity name must be alphanumeric with hyphens and underscores allowed, "
                f"got '{name}'."
            )
    for name, count in Counter(names).items():
        if count > 1:
            raise InvalidParameter(f"Served entity names must be unique, '{name}' is given twice.")
    return Config(entities, _routes(asked, names), _task(models))


def _model_of(asked: ServedEntityInput, catalog: Catalog) -> CatalogModel:
    if asked.external_model is not None:
        raise InvalidParameter("External models are not served by this version of the emulator.")
    if not asked.entity_name:
        raise InvalidParameter("Missing required field: served_entities.entity_name")
    if not asked.entity_version:
        raise InvalidParameter(
            f"Missing required field: served_entities.entity_version of {asked.entity_name}"
        )
    return find_model(catalog, asked.entity_name, asked.entity_version)


def _entity(asked: ServedEntityInput, model: CatalogModel, drafting: Drafting) -> ServedEntity:
    settings = asked.model_dump(
        exclude_none=True,
        exclude={
            "name",
            "entity_name",
            "entity_version",
            "external_model",
            "min_provisioned_throughput",
            "max_provisioned_throughput",
        },
    )
    sized = asked.min_provisioned_throughput, asked.max_provisioned_throughput
    band = None
    if sized != (None, None):
        request = ThroughputRequest(*sized, scale_to_zero=bool(asked.scale_to_zero_enabled))
        band = throughput_band(model, request, strict=drafting.strict_grid)
        settings |= {
            "workload_type": model.family.workload_type,
            "min_dbus": dbus(band.minimum, model),
            "max_dbus": dbus(band.maximum, model),
        }
    elif model.refusal is not None:
        raise InvalidParameter(model.refusal)
    return ServedEntity(
        name=asked.name or f"{model.full_name.rpartition('.')[2]}-{asked.entity_version}",
        state=EntityState.CREATING,
        state_message=MESSAGES[CREATING],
        creator=drafting.creator,
        created_at=drafting.now,
        entity_name=model.full_name,
        entity_version=asked.entity_version,
        min_provisioned_throughput=None if band is None else band.minimum,
        max_provisioned_throughput=None if band is None else band.maximum,
        settings=_workload_defaults(asked) | settings,
    )


def _workload_defaults(asked: ServedEntityInput) -> dict[str, object]:
    """`Small` unless concurrency says how big; `CPU` unless throughput chooses the GPU."""
    by_concurrency = (asked.min_provisioned_concurrency, asked.max_provisioned_concurrency)
    size = {} if any(by_concurrency) else {"workload_size": DEFAULT_WORKLOAD_SIZE}
    return {**size, "workload_type": DEFAULT_WORKLOAD_TYPE, "scale_to_zero_enabled": False}


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


def _task(models: list[CatalogModel]) -> str:
    tasks = {model.task for model in models}
    if len(tasks) > 1:
        raise InvalidParameter(
            f"All served entities must have the same task, got {', '.join(sorted(tasks))}."
        )
    return tasks.pop()
