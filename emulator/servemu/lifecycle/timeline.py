"""How long a deployment takes: its stages with their real durations, and the speedup over them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from servemu.catalog import CatalogModel, Family
from servemu.lifecycle import fates
from servemu.lifecycle.fates import CREATING, LOADING, WAITING
from servemu.registry.lookup import ModelLookup
from servemu_state.records import Deployment

MESSAGES: Mapping[int, str] = {
    CREATING: "Creating resources for served entity.",
    LOADING: "Deploying served entities",
    WAITING: "Creating resources for served entity.",
}
"""`deployment_state_message` of each stage (facts/provisioned_throughput §4)."""

IDLE_SECONDS = 1800.0
"""Without a request, until an entity that may is scaled to zero. DOC for custom endpoints; that
page leaves foundation models out, for which it is a GUESS (facts/provisioned_throughput §3)."""
EXTERNAL_SECONDS = 10.0
"""An external model has nothing to load: seconds to two minutes (facts/control_plane §3)."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """Durations by the models deployed. A deployment is as slow as its slowest entity."""

    models: ModelLookup
    speedup: float

    def seconds(self, deployment: Deployment, stage: int) -> float:
        """How long the stage lasts on the workspace's clock."""
        families = list(self._families(deployment))
        workload = families[0].workload_type if families else "CPU"
        real = fates.stage_seconds(deployment, stage, workload)
        if real is None and stage == LOADING:
            real = max((family.loading_seconds for family in families), default=0.0)
        elif real is None and (stage == WAITING or fates.waits_for_capacity(deployment)):
            waits = (family.capacity_wait_seconds for family in families)
            real = max(waits, default=EXTERNAL_SECONDS)
        elif real is None:
            real = max((family.creating_seconds for family in families), default=EXTERNAL_SECONDS)
        return self.scaled(real)

    def scaled(self, real: float) -> float:
        """From the real service's seconds to those of the workspace's clock."""
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
            model = self.models.of(entity)
            if model is not None:
                yield model
