"""The data tables: model families, registered models, pay-per-token endpoints, and their sizes."""

from servemu.catalog.checks import CatalogInvalid
from servemu.catalog.loading import load_catalog
from servemu.catalog.optimization import optimization_info
from servemu.catalog.sizes import (
    ThroughputBand,
    ThroughputInvalid,
    ThroughputRequest,
    check_entity_count,
    dbus,
    provisioned_rate,
    replicas,
    throughput_band,
    unit_replicas,
)
from servemu.catalog.tables import Catalog, CatalogModel, Family, FoundationEndpoint, Task

__all__ = [
    "Catalog",
    "CatalogInvalid",
    "CatalogModel",
    "Family",
    "FoundationEndpoint",
    "Task",
    "ThroughputBand",
    "ThroughputInvalid",
    "ThroughputRequest",
    "check_entity_count",
    "dbus",
    "load_catalog",
    "optimization_info",
    "provisioned_rate",
    "replicas",
    "throughput_band",
    "unit_replicas",
]
