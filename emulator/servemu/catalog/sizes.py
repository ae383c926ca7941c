"""The sizes of a served entity: what may be asked for, how many replicas it is, what it costs.

Rules and their standing: facts/provisioned_throughput §2. No refusal of a bad size was ever
recorded, so every text here is a GUESS but the one about eligibility.
"""

from dataclasses import dataclass

from servemu.catalog.tables import CatalogModel

MOST_TOKENS = 10**9
"""Tokens/s of a served entity. Ours: far above every size that was ever seen, and what a budget
can count exactly."""

MOST_UNITS = 10**6
"""Model units, likewise."""


class ThroughputInvalid(Exception):
    """A size that the service refuses: 400 INVALID_PARAMETER_VALUE with `message`.

    `why`: what the message does not say, for `X-Emulator-Why`.
    """

    def __init__(self, entity: str, message: str, why: str | None = None) -> None:
        super().__init__(message)
        self.entity = entity
        self.message = message
        self.why = why


@dataclass(frozen=True, slots=True)
class ThroughputRequest:
    """The sizes as they were sent, tokens/s; None: not sent."""

    minimum: int | None = None
    maximum: int | None = None
    scale_to_zero: bool = False


@dataclass(frozen=True, slots=True)
class ThroughputBand:
    """`min_` and `max_provisioned_throughput` in tokens/s, as they are echoed."""

    minimum: int
    maximum: int


def replicas(tokens_per_second: int, chunk: int) -> int:
    """Replicas that deliver the asked tokens/s: rounded up to whole chunks, 0 for 0."""
    return -(-tokens_per_second // chunk)


def provisioned_rate(num_replicas: int, model: CatalogModel) -> float:
    """Tokens/s that `num_replicas` deliver; 0 for a model without provisioned throughput.

    Model units: one replica is `unit_chunk` units of `tokens_per_unit` each.
    """
    family = model.family
    if model.chunk is not None:
        return float(num_replicas * model.chunk)
    if family.unit_chunk is not None and family.tokens_per_unit is not None:
        return num_replicas * family.unit_chunk * family.tokens_per_unit
    return 0.0


def dbus(tokens_per_second: int, model: CatalogModel) -> float:
    """`min_dbus` or `max_dbus` of the echo, DBU/h: 106.0 for 19000, 24.0 for 970 (OBS).

    Raises `ThroughputInvalid` for a model that is not sized in tokens/s.
    """
    chunk = _chunk(model)
    return replicas(tokens_per_second, chunk) * float(model.family.dbus_per_chunk)


def throughput_band(
    model: CatalogModel, request: ThroughputRequest, *, strict: bool = False
) -> ThroughputBand:
    """The band with its defaults filled in; call it when at least one of the two was sent.

    Only the maximum sent: the minimum is 0 with scale to zero, else the maximum (GUESS; the
    Terraform docs show the first). A minimum of 0 is legal, also without scale to zero. `strict`:
    sizes that are no multiple of the chunk are refused, else they stay as given and `replicas`
    rounds up. Raises `ThroughputInvalid`.
    """
    chunk = _chunk(model)
    entity, maximum = model.full_name, request.maximum
    if maximum is None:
        raise ThroughputInvalid(entity, f"max_provisioned_throughput is required for {entity}.")
    minimum = request.minimum
    if minimum is None:
        minimum = 0 if request.scale_to_zero else maximum
    _check_size(entity, "max_provisioned_throughput", maximum, chunk if strict else 1)
    if maximum == 0:
        raise ThroughputInvalid(
            entity, f"max_provisioned_throughput must be greater than 0 for {entity}, got 0."
        )
    if maximum > MOST_TOKENS:
        raise _too_large(entity, "max_provisioned_throughput", MOST_TOKENS, maximum)
    _check_size(entity, "min_provisioned_throughput", minimum, chunk if strict else 1)
    if minimum > maximum:
        raise ThroughputInvalid(
            entity,
            f"min_provisioned_throughput ({minimum}) must not be greater than "
            f"max_provisioned_throughput ({maximum}) for {entity}.",
        )
    return ThroughputBand(minimum, maximum)


def unit_replicas(model: CatalogModel, units: int) -> int:
    """Replicas of `provisioned_model_units`.

    Units off the grid are refused: a GUESS, one article creates with 4 (facts §2). Raises
    `ThroughputInvalid`, also for a model that is not sized in units.
    """
    unit_chunk = model.family.unit_chunk
    if not model.takes_model_units or unit_chunk is None:
        raise _not_eligible(model)
    if units < unit_chunk or units % unit_chunk:
        raise ThroughputInvalid(
            model.full_name,
            f"provisioned_model_units must be a positive multiple of {unit_chunk} for "
            f"{model.full_name}, got {units}.",
        )
    if units > MOST_UNITS:
        raise _too_large(model.full_name, "provisioned_model_units", MOST_UNITS, units)
    return units // unit_chunk


def check_entity_count(models: list[CatalogModel]) -> None:
    """Refuse a traffic split for models that allow none (Maverick, DOC; text GUESS).

    Raises `ThroughputInvalid`.
    """
    for model in models:
        if model.family.single_entity and len(models) > 1:
            raise ThroughputInvalid(
                model.full_name,
                f"Served entity {model.full_name} must be the only served entity of its "
                f"endpoint, got {len(models)}.",
            )


def _chunk(model: CatalogModel) -> int:
    if not model.takes_throughput or model.chunk is None:
        raise _not_eligible(model)
    return model.chunk


def _not_eligible(model: CatalogModel) -> ThroughputInvalid:
    # Real text (databricks-sdk-py issue 1081); a refused model of the catalogue has its own.
    text = f"Served entity {model.full_name} is not eligible for Provisioned Throughput."
    if model.model_id is not None:
        return ThroughputInvalid(model.full_name, text, model.refusal)
    return ThroughputInvalid(model.full_name, model.refusal or text)


def _too_large(entity: str, field: str, most: int, given: int) -> ThroughputInvalid:
    return ThroughputInvalid(
        entity, f"{field} must not be greater than {most} for {entity}, got {given}."
    )


def _check_size(entity: str, field: str, given: int, multiple_of: int) -> None:
    if given < 0:
        raise ThroughputInvalid(entity, f"{field} must not be negative for {entity}, got {given}.")
    if given % multiple_of:
        raise ThroughputInvalid(
            entity, f"{field} must be a multiple of {multiple_of} for {entity}, got {given}."
        )
