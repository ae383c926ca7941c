"""How long a deployment takes: its stages with their real durations, and the speedup over them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from servemu.catalog import Catalog, CatalogModel, Family
from servemu.schemas.faults import NoCapacity
from servemu_state.records import Deployment

CREATING = 0
LOADING = 1
MESSAGES = ("Creating resources for served entity.", "Deploying served entities")
"""`deployment_state_message` of each stage (facts/provisioned_throughput §4)."""

IDLE_SECONDS = 1800.0
"""Without a request, until an entity that may is scaled to zero. DOC for custom endpoints; that
page leaves foundation models out, for which it is a GUESS (facts/provisioned_throughput §3)."""
EXTERNAL_SECONDS = 10.0
"""An external model has nothing to load: seconds to two minutes (facts/control_plane §3)."""

NO_CAPACITY = (
    "Served entity creation aborted because the resource did not become available in time."
)
"""What a deployment without GPU capacity ends with (facts/provisioned_throughput §5, C1)."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """Durations by the models deployed. A deployment is as slow as its slowest entity."""

    catalog: Catalog
    speedup: float

    def seconds(self, deployment: Deployment, stage: int) -> float:
        """How long the stage lasts on the workspace's clock."""
        families = list(self._families(deployment))
        if stage == LOADING:
            real = max((family.loading_seconds for family in families), default=0.0)
        elif (effect := no_capacity(deployment.fault)) is not None:
            real = (
                effect.after.total_seconds()
                if effect.after is not None
                else max(
                    (family.capacity_wait_seconds for family in families), default=EXTERNAL_SECONDS
                )
            )
        else:
            real = max((family.creating_seconds for family in families), default=EXTERNAL_SECONDS)
        return real / self.speedup

    def idle_seconds(self) -> float:
        """Until what may is scaled to zero, on the workspace's clock."""
        return IDLE_SECONDS / self.speedup

    def waking_seconds(self, deployment: Deployment) -> float:
        """From zero until it serves, on the workspace's clock."""
        families = self._families(deployment)
        return max((family.cold_start_seconds for family in families), default=0.0) / self.speedup

    def task(self, deployment: Deployment) -> str | None:
        """What all its entities do; None: their models left the catalogue."""
        for entity in deployment.entities:
            external: Mapping[str, str] = entity.settings.get("external_model", {})
            if "task" in external:
                return external["task"]
        return next((model.task for model in self._models(deployment)), None)

    def _families(self, deployment: Deployment) -> Iterable[Family]:
        return (model.family for model in self._models(deployment))

    def _models(self, deployment: Deployment) -> Iterable[CatalogModel]:
        for entity in deployment.entities:
            model = self.catalog.model(entity.entity_name or "")
            if model is not None:
                yield model


def no_capacity(fault: Mapping[str, Any] | None) -> NoCapacity | None:
    """The effect of a deployment's fault, if it is a lack of capacity."""
    return None if fault is None else NoCapacity.model_validate(fault["effect"])
