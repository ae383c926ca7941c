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
        self._budgets: dict[str, dict[str, tuple[int, dict[str, TokenBudget]]]] = {}
        """By workspace and endpoint id: the config version, and the budget of each entity."""
        self.limits = WorkspaceLimits(
            clock, settings.max_workspace_qps, settings.max_workspace_concurrency
        )

    def unlimited(self, workspace: str, endpoint: str) -> TokenBudget:
        """Of a pay-per-token endpoint."""
        budget = self._unlimited.get((workspace, endpoint))
        if budget is None:
            budget = self._unlimited[workspace, endpoint] = TokenBudget(None, self._clock)
        return budget

    def unlimited_of(self, workspace: str) -> dict[str, TokenBudget]:
        """Of the workspace's pay-per-token endpoints that were asked, by name."""
        asked = self._unlimited.items()
        return {name: budget for (owner, name), budget in asked if owner == workspace}

    def of(self, endpoint: Endpoint, entity: ServedEntity, model: CatalogModel) -> TokenBudget:
        """Of the entity, in the config version that serves."""
        assert endpoint.active is not None
        of_workspace = self._budgets.setdefault(endpoint.workspace, {})
        version, budgets = of_workspace.get(endpoint.id, (0, {}))
        if version != endpoint.active.config_version:
            budgets = {}
            of_workspace[endpoint.id] = endpoint.active.config_version, budgets
        if entity.name not in budgets:
            rate = self.rate(entity, model)
            budgets[entity.name] = TokenBudget(rate, self._clock, self.terms(entity, model))
        return budgets[entity.name]

    def rate(self, entity: ServedEntity, model: CatalogModel) -> float | None:
        """Tokens/s of the replicas that serve now, on this machine; None: unlimited."""
        autoscaling = self._settings.autoscaling
        rate = provisioned_tokens_per_second(entity, model, autoscaling=autoscaling)
        return None if rate is None else rate * self._settings.throughput_scale

    def find(self, endpoint: Endpoint, entity: str) -> TokenBudget | None:
        """Of the entity; None: nobody asked it since this config version serves."""
        of_workspace = self._budgets.get(endpoint.workspace, {})
        version, budgets = of_workspace.get(endpoint.id, (0, {}))
        if endpoint.active is None or version != endpoint.active.config_version:
            return None
        return budgets.get(entity)

    def forget(self, endpoint: Endpoint) -> None:
        """The endpoint is gone, and its budgets with it."""
        self._budgets.get(endpoint.workspace, {}).pop(endpoint.id, None)

    def forget_all(self, workspace: str) -> None:
        """All endpoints of the workspace are gone; what it may ask for a second counts anew."""
        self._budgets.pop(workspace, None)
        self.limits.forget(workspace)

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
        bursts = entity.settings.get("burst_scaling_enabled") is not False
        in_units = entity.settings.get("provisioned_model_units") is not None
        return terms_of(self._settings, model, bursts=in_units and bursts)


def terms_of(settings: Settings, model: CatalogModel, *, bursts: bool) -> Terms:
    """`bursts`: more than was provisioned, for a while."""
    surge = None
    if bursts:
        surge = Surge(settings.burst_scaling_factor, settings.burst_scaling_seconds)
    bounds = Bounds(settings.max_queue_seconds, settings.max_queue_tokens, settings.max_concurrency)
    weights = Weights(model.family.input_weight, model.family.output_weight)
    return Terms(weights, bounds, surge)


def bounds_of(entity: ServedEntity, model: CatalogModel) -> tuple[int, int] | None:
    """Least and most replicas of the entity while it serves: 1 at least, zero is left to sleeping.
    Model units have one size. None: it is not provisioned, so not limited.
    """
    units: int | None = entity.settings.get("provisioned_model_units")
    if units is not None and model.takes_model_units:
        size = unit_replicas(model, units)
        return size, size
    if entity.max_provisioned_throughput is None or model.chunk is None:
        return None
    most = max(1, replicas(entity.max_provisioned_throughput, model.chunk))
    least = replicas(entity.min_provisioned_throughput or 0, model.chunk)
    return min(most, max(1, least)), most


def may_scale(entity: ServedEntity, model: CatalogModel) -> bool:
    """Its bounds differ, and its family autoscales at all (Maverick does not, DOC)."""
    bounds = bounds_of(entity, model)
    return bounds is not None and bounds[0] < bounds[1] and model.family.autoscales


def standing_replicas(
    entity: ServedEntity, model: CatalogModel, *, autoscaling: bool = True
) -> int | None:
    """Replicas that serve now. None: not provisioned. What does not scale stands at its maximum."""
    bounds = bounds_of(entity, model)
    if bounds is None:
        return None
    least, most = bounds
    if not autoscaling or not may_scale(entity, model):
        return most
    return least if entity.replicas is None else max(least, min(most, entity.replicas))


def provisioned_tokens_per_second(
    entity: ServedEntity, model: CatalogModel, *, autoscaling: bool = True
) -> float | None:
    """What the replicas that serve now deliver; None: not provisioned, so not limited."""
    standing = standing_replicas(entity, model, autoscaling=autoscaling)
    return None if standing is None else provisioned_rate(standing, model)
