"""Which kind of endpoint it is: of external models, of provisioned throughput, or custom."""

from servemu_state.records import Deployment, Endpoint, ServedEntity


def is_external(entity: ServedEntity) -> bool:
    """Somebody else's model, behind a provider. All entities of a config are, or none."""
    return "external_model" in entity.settings


def is_provisioned(entity: ServedEntity) -> bool:
    """Sized by throughput, in tokens/s or in model units."""
    return (
        entity.max_provisioned_throughput is not None
        or "provisioned_model_units" in entity.settings
    )


def latest(endpoint: Endpoint) -> Deployment | None:
    """What says of which kind the endpoint is; None: it never had a config."""
    return endpoint.active or endpoint.pending
