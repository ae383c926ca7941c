"""The token budgets of what is deployed: one for each served entity of the config that serves."""

from servemu.catalog import CatalogModel, provisioned_rate, replicas, unit_replicas
from servemu.clock import Clock
from servemu.settings import Settings
from servemu.throughput.budget import TokenBudget
from servemu.throughput.limits import WorkspaceLimits
from servemu.throughput.pace import Pace
from servemu.throughput.terms import Bounds, Surge, Terms, Weights
from servemu_state.records import Endpoint, ServedEntity


class Budgets:
    """Made at the first request; gone with the endpoint, or with a new config version."""

    def __init__(self, clock: Clock, settings: Settings) -> None:
        self._clock = clock
        self._settings = settings
        self._unlimited: dict[tuple[str, str], TokenBudget] = {}
        """Of the pay-per-token endpoints, by workspace and name."""
        self._budgets: dict[str, tuple[int, dict[str, TokenBudget]]] = {}
        """By endpoint id: the config version, and the budget of each of its entities."""
        self.limits = WorkspaceLimits(
            clock, settings.max_workspace_qps, settings.max_workspace_concurrency
        )

    def unlimited(self, workspace: str, endpoint: str) -> TokenBudget:
        """Of a pay-per-token endpoint."""
        budget = self._unlimited.get((workspace, endpoint))
        if budget is None:
            budget = self._unlimited[workspace, endpoint] = TokenBudget(None, self._clock)
        return budget

    def of(self, endpoint: Endpoint, entity: ServedEntity, model: CatalogModel) -> TokenBudget:
        """Of the entity, in the config version that serves."""
        assert endpoint.active is not None
        version, budgets = self._budgets.get(endpoint.id, (0, {}))
        if version != endpoint.active.config_version:
            budgets = {}
            self._budgets[endpoint.id] = endpoint.active.config_version, budgets
        if entity.name not in budgets:
            rate = provisioned_tokens_per_second(entity, model)
            scaled = None if rate is None else rate * self._settings.throughput_scale
            budgets[entity.name] = TokenBudget(scaled, self._clock, self.terms(entity, model))
        return budgets[entity.name]

    def find(self, endpoint: Endpoint, entity: str) -> TokenBudget | None:
        """Of the entity; None: nobody asked it since this config version serves."""
        version, budgets = self._budgets.get(endpoint.id, (0, {}))
        if endpoint.active is None or version != endpoint.active.config_version:
            return None
        return budgets.get(entity)

    def forget(self, endpoint_id: str) -> None:
        """The endpoint is gone, and its budgets with it."""
        self._budgets.pop(endpoint_id, None)

    def pace(self, model: CatalogModel) -> Pace | None:
        """Of the played model, if the settings ask for it."""
        if self._settings.pace == "budget":
            return None
        family = model.family
        return Pace(
            ttft=family.ttft_ms / 1000,
            # Embeddings: a flat figure for the whole call (facts/provisioned_throughput §3).
            prefill_share=0.0 if family.dimensions else family.prefill_share,
            tpot=family.tpot_ms / 1000,
            load_factor=family.load_factor,
        )

    def terms(self, entity: ServedEntity, model: CatalogModel) -> Terms:
        """What the settings, the family and the entity say. Burst scaling is on unless it was
        turned off, and only for model units (facts/provisioned_throughput §3)."""
        settings, surge = self._settings, None
        bursts = entity.settings.get("burst_scaling_enabled") is not False
        if entity.settings.get("provisioned_model_units") is not None and bursts:
            surge = Surge(settings.burst_scaling_factor, settings.burst_scaling_seconds)
        bounds = Bounds(
            settings.max_queue_seconds, settings.max_queue_tokens, settings.max_concurrency
        )
        weights = Weights(model.family.input_weight, model.family.output_weight)
        return Terms(weights, bounds, surge)


def provisioned_tokens_per_second(entity: ServedEntity, model: CatalogModel) -> float | None:
    """Whole chunks of the most that was asked for, or its model units; None: not provisioned, so
    not limited.

    An entity stands at its maximum until there is an autoscaler to move it.
    """
    units: int | None = entity.settings.get("provisioned_model_units")
    if units is not None and model.takes_model_units:
        return provisioned_rate(unit_replicas(model, units), model)
    if entity.max_provisioned_throughput is None or model.chunk is None:
        return None
    return provisioned_rate(replicas(entity.max_provisioned_throughput, model.chunk), model)
