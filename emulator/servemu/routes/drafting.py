"""What the endpoint routes make of a request: a draft of the endpoint that it is about."""

from starlette.requests import Request

from servemu.errors import InvalidParameter
from servemu.lifecycle.entities import Drafting
from servemu.lifecycle.gateway import shown_gateway
from servemu.lifecycle.telemetry import shown_telemetry, why_unsupported
from servemu.lifecycle.transitions import Config
from servemu.schemas.endpoints import CreateEndpoint
from servemu.world import principal_of, world_of
from servemu_state.records import ConfigUpdate, Endpoint


def drafting_of(
    request: Request, endpoint: str, *, by_units: bool = False, is_update: bool = False
) -> Drafting:
    """What a config of this endpoint is checked against."""
    world, principal = world_of(request), principal_of(request)
    return Drafting(
        models=world.lookup,
        endpoint=endpoint,
        creator=principal.user,
        workspace=principal.workspace,
        now=world.workspaces.now(principal.workspace),
        strict_grid=world.settings.throughput_grid == "strict",
        by_units=by_units,
        is_update=is_update,
    )


def new_endpoint(request: Request, body: CreateEndpoint, config: Config | None) -> Endpoint:
    """The endpoint as it is before its first deployment. Raises `InvalidParameter`.

    `email_notifications` are not echoed by a create on a real workspace (facts/control_plane §2.1).
    """
    world, principal = world_of(request), principal_of(request)
    request.scope["endpoint_name"] = body.name
    now = world.workspaces.now(principal.workspace)
    if world.dice.seed is not None:
        world.attic.empty()
    return Endpoint(
        id=world.dice.hex(principal.workspace, f"endpoint/{body.name}"),
        workspace=principal.workspace,
        name=body.name,
        creator=principal.user,
        created_at=now,
        updated_at=now,
        config_update=ConfigUpdate.NOT_UPDATING,
        tags=tuple({tag.key: tag.value for tag in body.tags}.items()),
        settings=_settings(body, config)
        | ({"creator_kind": "ServicePrincipal"} if principal.is_service_principal else {}),
    )


def _settings(body: CreateEndpoint, config: Config | None) -> dict[str, object]:
    gateway = shown_gateway(body.ai_gateway, body.name)
    limits = [limit.shown() for limit in body.rate_limits or ()]
    for field, given in (("ai_gateway", gateway), ("rate_limits", limits)):
        if given and config is None:
            raise InvalidParameter(
                f"Cannot specify {field} when creating endpoints without a config."
            )
    unsupported = why_unsupported(None if config is None else config.entities)
    kept = {
        "description": body.description,
        "route_optimized": body.route_optimized,
        "ai_gateway": gateway,
        "rate_limits": limits or None,
        "effective_budget_policy_id": body.budget_policy_id,
        "usage_policy_id": body.usage_policy_id,
        # Where it is not supported, it is dropped without a word (facts/control_plane §2.6).
        "telemetry_config": None if unsupported else shown_telemetry(body.telemetry_config, None),
    }
    return {key: value for key, value in kept.items() if value is not None}
