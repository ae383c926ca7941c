"""Served entities as they were asked for → as they are deployed: checks, and the defaults.

Four kinds: sized in tokens/s, sized in model units, a custom model on a workload, an external
model. Rules: facts/control_plane §2.4, §4, facts/provisioned_throughput §2.
"""

from dataclasses import dataclass

from servemu.catalog import (
    CatalogModel,
    ThroughputRequest,
    dbus,
    throughput_band,
    unit_replicas,
)
from servemu.errors import InvalidParameter
from servemu.lifecycle.external_models import (
    check_external_model,
    default_name,
    shown_external_model,
)
from servemu.lifecycle.fates import CREATING
from servemu.lifecycle.timeline import MESSAGES
from servemu.lifecycle.workloads import check_workload, workload_defaults
from servemu.registry.lookup import ModelLookup
from servemu.schemas.endpoints import ServedEntityInput
from servemu.schemas.external_models import ExternalModel
from servemu_state.records import EntityState, ServedEntity

EXTERNAL_ONLY = (
    "entity_name",
    "entity_version",
    "workload_size",
    "workload_type",
    "instance_profile_arn",
    "environment_vars",
)
"""Exclusive with `external_model` (DOC)."""
OWN_FIELDS = {
    "name",
    "entity_name",
    "entity_version",
    "external_model",
    "min_provisioned_throughput",
    "max_provisioned_throughput",
}
"""Fields that the record has a place for; all others go to its settings."""


@dataclass(frozen=True, slots=True)
class Drafting:
    """What a config is checked against."""

    models: ModelLookup
    endpoint: str
    creator: str
    workspace: str
    now: float
    strict_grid: bool
    by_units: bool = False
    """Asked for on a `/pt` route."""
    is_update: bool = False


def model_of(asked: ServedEntityInput, drafting: Drafting) -> CatalogModel | None:
    """The registered model that is asked for; None: an external one, which is checked.

    Raises `InvalidParameter`, `ModelNotFound`.
    """
    if asked.external_model is not None:
        _check_external(asked, asked.external_model)
        return None
    if not asked.entity_name:
        raise InvalidParameter("Missing required field: served_entities.entity_name")
    if not asked.entity_version and not drafting.by_units:
        raise InvalidParameter(
            f"Missing required field: served_entities.entity_version of {asked.entity_name}"
        )
    return drafting.models.find(drafting.workspace, asked.entity_name, asked.entity_version or None)


def draft_entity(
    asked: ServedEntityInput, model: CatalogModel | None, drafting: Drafting
) -> ServedEntity:
    """Raises `InvalidParameter`, `ThroughputInvalid`."""
    if model is None:
        assert asked.external_model is not None
        return _external(asked, asked.external_model, drafting)
    check_workload(asked)
    if drafting.by_units:
        return _by_units(asked, model, drafting)
    if model.takes_model_units:  # real text, real for a request with tokens/s (sdk-py #1081)
        raise InvalidParameter(
            f"Served entity {model.full_name} is not eligible for Provisioned Throughput."
        )
    if (asked.min_provisioned_throughput, asked.max_provisioned_throughput) != (None, None):
        return _by_tokens(asked, model, drafting)
    if model.refusal is not None:
        raise InvalidParameter(model.refusal)
    if drafting.is_update and asked.scale_to_zero_enabled is None:  # Terraform issue 4064
        raise InvalidParameter(
            "scaleToZeroEnabled is undefined. Please set it to either true or false."
        )
    settings = workload_defaults(asked) | _settings(asked)
    return _entity(asked, model, drafting, settings)


def _by_tokens(asked: ServedEntityInput, model: CatalogModel, drafting: Drafting) -> ServedEntity:
    request = ThroughputRequest(
        asked.min_provisioned_throughput,
        asked.max_provisioned_throughput,
        scale_to_zero=bool(asked.scale_to_zero_enabled),
    )
    band = throughput_band(model, request, strict=drafting.strict_grid)
    sized = {
        "workload_type": model.family.workload_type,
        "min_dbus": dbus(band.minimum, model),
        "max_dbus": dbus(band.maximum, model),
    }
    settings = workload_defaults(asked) | _settings(asked) | sized
    given = asked.model_copy(
        update={
            "min_provisioned_throughput": band.minimum,
            "max_provisioned_throughput": band.maximum,
        }
    )
    return _entity(given, model, drafting, settings)


def _by_units(asked: ServedEntityInput, model: CatalogModel, drafting: Drafting) -> ServedEntity:
    """No workload is echoed: which one runs it is the service's choice (GUESS)."""
    units = asked.provisioned_model_units
    if units is None:
        raise InvalidParameter("Missing required field: served_entities.provisioned_model_units")
    unit_replicas(model, units)
    return _entity(asked, model, drafting, _settings(asked))


def _external(
    asked: ServedEntityInput, external: ExternalModel, drafting: Drafting
) -> ServedEntity:
    name = asked.name or default_name(external)
    settings: dict[str, object] = {
        "type": "EXTERNAL_MODEL",
        "external_model": shown_external_model(external, drafting.endpoint, name),
    }
    return _entity(asked.model_copy(update={"name": name}), None, drafting, settings)


def _entity(
    asked: ServedEntityInput,
    model: CatalogModel | None,
    drafting: Drafting,
    settings: dict[str, object],
) -> ServedEntity:
    version = None if model is None else asked.entity_version or _newest(model)
    full_name = "" if model is None else model.full_name
    return ServedEntity(
        name=asked.name or f"{full_name.rpartition('.')[2]}-{version}",
        state=EntityState.CREATING,
        state_message=MESSAGES[CREATING],
        creator=drafting.creator,
        created_at=drafting.now,
        entity_name=full_name or None,
        entity_version=version,
        min_provisioned_throughput=asked.min_provisioned_throughput,
        max_provisioned_throughput=asked.max_provisioned_throughput,
        settings=settings,
        model_id=None if model is None else model.model_id,
    )


def _newest(model: CatalogModel) -> str:
    """What /pt takes when no version is given: GUESS (databricks-sdk `PtServedModel`)."""
    return max(model.versions, key=lambda version: (len(version), version))


def _settings(asked: ServedEntityInput) -> dict[str, object]:
    return asked.model_dump(exclude_none=True, exclude=OWN_FIELDS)


def _check_external(asked: ServedEntityInput, model: ExternalModel) -> None:
    """Rules DOC, the text about throughput after the issue, the other a GUESS."""
    if (asked.min_provisioned_throughput, asked.max_provisioned_throughput) != (None, None):
        # Even for a 0: Terraform sent some (facts/provisioned_throughput §2).
        raise InvalidParameter(
            "provisioned throughput is not supported for endpoints with external models"
        )
    for field in EXTERNAL_ONLY:
        if getattr(asked, field) is not None:
            raise InvalidParameter(f"{field} cannot be specified together with external_model.")
    check_external_model(model)
