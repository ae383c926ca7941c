"""What the catalogue holds, as frozen data: families, models, pay-per-token endpoints."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from servemu.catalog.signatures import Signature

Task = Literal["llm/v1/chat", "llm/v1/completions", "llm/v1/embeddings", "custom"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What all models of a family share. Sources and marks of the values: `families.toml`.

    At most one of `chunk` and `unit_chunk` is set; neither: pay-per-token only.
    """

    name: str
    model_type: str
    """`model_type` of the optimization info."""
    tasks: tuple[Task, ...]
    chunk: int | None = None
    """Tokens/s (input + output) of one replica."""
    unit_chunk: int | None = None
    """Model units of one replica."""
    tokens_per_unit: float | None = None
    """Tokens/s of one model unit; set with `unit_chunk`."""
    context_length: int
    """Tokens of prompt and answer together."""
    max_output_tokens: int | None = None
    dimensions: int | None = None
    """Length of an embedding; set for the embeddings task."""
    normalized: bool = False
    """Embeddings have unit length."""
    workload_type: str
    """What the service echoes, and the GPU pool a replica is taken from."""
    dbus_per_chunk: float
    """DBU/h of one replica."""
    creating_seconds: float
    loading_seconds: float
    scale_up_seconds: float
    """One more replica, until it serves."""
    scale_down_seconds: float = 300.0
    """For how long fewer must be enough before the rest goes."""
    scale_decision_seconds: float = 15.0
    """Between two looks at the load."""
    cold_start_seconds: float
    """From zero, until it serves."""
    capacity_wait_seconds: float
    """Without a GPU, until the deployment is aborted."""
    ttft_ms: float
    """To the first token; embeddings: the whole call."""
    tpot_ms: float
    """Each further token."""
    prefill_share: float = 0.0
    """The part of `ttft_ms` that grows with the prompt, 0 to 1."""
    load_factor: float = 0.0
    """At full load everything takes 1 + this times as long."""
    input_weight: float = 1.0
    output_weight: float = 1.0
    """What one token takes from the budget."""
    stand_in: str
    """The small model that plays it."""
    single_entity: bool = False
    """No traffic split: one served entity an endpoint (Maverick)."""
    autoscales: bool = True
    legacy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogModel:
    """A model that can be served."""

    full_name: str
    """`catalog.schema.model`."""
    versions: tuple[str, ...]
    family: Family
    task: Task
    served_name: str
    """`model` in answers of the data plane."""
    chunk: int | None
    """Tokens/s of one replica, the model's own or the family's; None: not sized in tokens/s."""
    refusal: str | None = None
    """Why it cannot be deployed, for people."""
    signature: Signature | None = None
    """Of a custom model."""
    api_types: tuple[str, ...] = ()
    """The APIs an endpoint of it speaks besides those of its task."""
    model_id: str | None = None
    """Set for a model that somebody registered."""
    folder: Path | None = None
    """Where its own weights were uploaded to; None: its family's stand-in plays it."""

    @property
    def takes_throughput(self) -> bool:
        """`min_/max_provisioned_throughput` on the old route."""
        return self.refusal is None and self.chunk is not None

    @property
    def takes_model_units(self) -> bool:
        """`provisioned_model_units` on the `/pt` route."""
        return self.refusal is None and self.family.unit_chunk is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundationEndpoint:
    """A pay-per-token endpoint of a fresh workspace."""

    name: str
    model: CatalogModel
    display_name: str
    description: str
    docs: str
    model_class: str
    api_types: tuple[str, ...]
    created: int
    """`creation_timestamp` and `last_updated_timestamp`, ms."""
    capabilities: Mapping[str, bool] = field(default_factory=dict)
    """The whole `capabilities` object; may be empty."""
    input_price: str | None = None
    """DBUs per 1M tokens."""
    price: str | None = None
    """DBUs per 1M output tokens."""

    @property
    def task(self) -> Task:
        return self.model.task

    @property
    def entity_name(self) -> str:
        return self.model.full_name

    def foundation_model(self) -> dict[str, object]:
        """`served_entities[0].foundation_model` (key set OBS May 2026, lib:56490560434).

        `ai_gateway_model_profile` is left out: a benchmark of others.
        """
        prices = {"price": self.price, "input_price": self.input_price}
        return {
            "name": self.entity_name,
            "display_name": self.display_name,
            "docs": self.docs,
            "description": self.description,
            **{key: value for key, value in prices.items() if value is not None},
            "price_unit": "DBUs per 1M tokens",
            "pricing_model": "Pay-per-token",
            "model_class": self.model_class,
            "api_types": list(self.api_types),
            "ai_gateway_v2_supported": True,
        }


@dataclass(frozen=True, slots=True)
class Catalog:
    """All tables, every reference resolved."""

    families: Mapping[str, Family]
    models: Mapping[str, CatalogModel]
    foundation_endpoints: tuple[FoundationEndpoint, ...]

    def model(self, full_name: str) -> CatalogModel | None:
        """The registered model of that name, or None."""
        return self.models.get(full_name)

    def foundation_endpoint(self, name: str) -> FoundationEndpoint | None:
        """The pay-per-token endpoint of that name, or None."""
        return next((e for e in self.foundation_endpoints if e.name == name), None)
