"""The document of a snapshot: a workspace as readable JSON, version 1.

Times are seconds since the epoch on the workspace's clock. Secrets are not in it, since none is
ever stored: `*_plaintext` fields are dropped when they come in (`schemas.external_models`).
"""

from typing import Annotated, Literal

from pydantic import Field

from servemu.schemas.effects import Strict
from servemu_state.records import ConfigUpdate, EntityState

FORMAT: Literal[1] = 1
Json = dict[str, object]
Time = Annotated[float, Field(ge=0, le=1e12)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,63}$")]


class EntitySaved(Strict):
    """A served entity, as `servemu_state.records.ServedEntity`."""

    name: str
    state: EntityState
    state_message: str
    creator: str
    created_at: Time
    entity_name: str | None = None
    entity_version: str | None = None
    min_provisioned_throughput: Count | None = None
    max_provisioned_throughput: Count | None = None
    settings: Json = {}
    model_id: str | None = None
    replicas: int | None = Field(None, ge=1, lt=2**31)


class RouteSaved(Strict):
    served_entity: str
    traffic_percentage: int = Field(ge=0, le=100)


class DeploymentSaved(Strict):
    config_version: Count
    entities: tuple[EntitySaved, ...] = Field(min_length=1)
    routes: tuple[RouteSaved, ...] = Field(min_length=1)
    started_at: Time
    stage: int = Field(0, ge=0, le=16)
    due_at: Time | None = None
    fault: Json | None = None


class EventSaved(Strict):
    at: Time
    type: str
    status: str
    message: str
    config_version: Count | None = None


class GrantSaved(Strict):
    kind: Literal["user_name", "group_name", "service_principal_name"]
    principal: str
    level: Literal["CAN_VIEW", "CAN_QUERY", "CAN_MANAGE"]


class EndpointSaved(Strict):
    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    name: Name
    creator: str
    created_at: Time
    updated_at: Time
    config_update: ConfigUpdate
    last_config_version: Count = 0
    tags: tuple[tuple[str, str], ...] = ()
    settings: Json = {}
    active: DeploymentSaved | None = None
    pending: DeploymentSaved | None = None
    events: tuple[EventSaved, ...] = ()
    permissions: tuple[GrantSaved, ...] = ()


class FaultSaved(Strict):
    id: str
    rule: Json
    created_at: Time
    matched: Count = 0
    fired: Count = 0
    last_request_id: str | None = None


class ReplySaved(Strict):
    id: str
    reply: Json
    created_at: Time
    used: Count = 0


class Document(Strict):
    """All of a workspace but its journal, its registered models and its running requests."""

    servemu_snapshot: Literal[1] = Field(FORMAT, description="The version of the format.")
    taken_at: Time
    """What the workspace's clock showed; a restore sets it back to this."""
    began_at: Time
    endpoints: tuple[EndpointSaved, ...] = ()
    faults: tuple[FaultSaved, ...] = ()
    replies: tuple[ReplySaved, ...] = ()
    draws: dict[str, Count] = {}
    """With `--seed`: how often each kind was drawn."""
