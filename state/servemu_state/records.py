"""The frozen records that cross the border of the state: no ORM object ever does."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

JsonObject = Mapping[str, Any]
"""A JSON object that is stored and given back unread."""


class ConfigUpdate(StrEnum):
    """`state.config_update` of an endpoint (databricks-sdk `EndpointStateConfigUpdate`)."""

    NOT_UPDATING = "NOT_UPDATING"
    IN_PROGRESS = "IN_PROGRESS"
    UPDATE_FAILED = "UPDATE_FAILED"
    UPDATE_CANCELED = "UPDATE_CANCELED"


class EntityState(StrEnum):
    """`state.deployment` of a served entity (databricks-sdk `ServedModelStateDeployment`)."""

    CREATING = "DEPLOYMENT_CREATING"
    READY = "DEPLOYMENT_READY"
    RECOVERING = "DEPLOYMENT_RECOVERING"
    FAILED = "DEPLOYMENT_FAILED"
    ABORTED = "DEPLOYMENT_ABORTED"
    STOPPED = "DEPLOYMENT_STOPPED"


@dataclass(frozen=True, slots=True)
class ServedEntity:
    """One served entity of a config version, with the defaults filled in."""

    name: str
    state: EntityState
    state_message: str
    creator: str
    created_at: float
    """Seconds since the epoch, on the workspace's clock."""
    entity_name: str | None = None
    entity_version: str | None = None
    min_provisioned_throughput: int | None = None
    """Tokens/s."""
    max_provisioned_throughput: int | None = None
    """Tokens/s."""
    settings: JsonObject = field(default_factory=dict)
    """All other wire fields of the entity (workload_type, environment_vars, …), echoed as given."""
    model_id: str | None = None
    """Of a model that somebody registered; None: one of the catalogue, or an external one."""
    replicas: int | None = None
    """That autoscaling has brought it to; None: it stands at its minimum."""


@dataclass(frozen=True, slots=True)
class Route:
    """The share of the traffic that one served entity gets."""

    served_entity: str
    traffic_percentage: int


@dataclass(frozen=True, slots=True)
class Deployment:
    """Bringing one config version up: what is deployed, and how far it has come."""

    config_version: int
    entities: tuple[ServedEntity, ...]
    routes: tuple[Route, ...]
    started_at: float
    """Seconds since the epoch, on the workspace's clock."""
    stage: int = 0
    """Index into the timeline's stages."""
    due_at: float | None = None
    """When the stage ends, on the workspace's clock; None once settled."""
    fault: JsonObject | None = None
    """The lifecycle fault that was drawn for this deployment: `{"rule": id, "effect": {…}}`."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A serving endpoint. `active` answers requests; `pending` is coming up, or failed to."""

    id: str
    """32 lower-case hex digits."""
    workspace: str
    name: str
    creator: str
    created_at: float
    updated_at: float
    config_update: ConfigUpdate
    last_config_version: int = 0
    """The highest version ever given out: a failed update uses its number up."""
    tags: tuple[tuple[str, str], ...] = ()
    settings: JsonObject = field(default_factory=dict)
    """Wire fields that are kept and echoed: description, task, route_optimized, ai_gateway, …"""
    active: Deployment | None = None
    pending: Deployment | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A line of an endpoint's history."""

    endpoint_id: str
    at: float
    type: str
    status: str
    message: str
    config_version: int | None = None


@dataclass(frozen=True, slots=True)
class FaultRule:
    """A fault rule and its ledger."""

    workspace: str
    id: str
    rule: JsonObject
    """The rule as it was validated and will be shown (design §10)."""
    created_at: float
    matched: int = 0
    fired: int = 0
    last_request_id: str | None = None


@dataclass(frozen=True, slots=True)
class ScriptedReply:
    """A scripted reply, and how often it was given."""

    workspace: str
    id: str
    reply: JsonObject
    """As it was validated and will be shown."""
    created_at: float
    used: int = 0


@dataclass(frozen=True, slots=True)
class Workspace:
    """An isolated world, and how far its clock was moved."""

    name: str
    created_at: float
    """Seconds since the epoch, on the workspace's clock."""
    clock_offset: float = 0.0
    """Seconds that the clock is ahead of real time."""
    generation: int = 0
    """How often it was reset: endpoints of an earlier generation are gone (see `generations`)."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A named state of a workspace."""

    workspace: str
    name: str
    document: JsonObject
    """`servemu.schemas.snapshots.Document`."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A permission level that somebody was given on an endpoint."""

    kind: str
    """`user_name`, `group_name` or `service_principal_name`."""
    principal: str
    level: str
    """`CAN_VIEW`, `CAN_QUERY` or `CAN_MANAGE`."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who may have been given permissions: a principal, and the group it belongs to."""

    kind: str
    principal: str
    group: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides whether somebody may do something to an endpoint."""

    endpoint_id: str
    name: str
    creator: str
    levels: tuple[str, ...]
    """What they were given, themselves or through their group."""
    settings: JsonObject = field(default_factory=dict)
    """The endpoint's."""


class VersionStatus(StrEnum):
    """`status` of a model version (databricks-sdk `ModelVersionInfoStatus`)."""

    PENDING = "PENDING_REGISTRATION"
    FAILED = "FAILED_REGISTRATION"
    READY = "READY"


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A model of Unity Catalog. Times are seconds since the epoch, on the workspace's clock."""

    id: str
    """32 lower-case hex digits; its files are kept under it."""
    workspace: str
    name: str
    """`catalog.schema.model`"""
    owner: str
    created_at: float
    updated_at: float
    updated_by: str
    description: str = ""
    last_version: int = 0
    """The highest version ever given out: a deleted one's number does not come again."""
    aliases: tuple[tuple[str, int], ...] = ()
    tags: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a registered model."""

    model_id: str
    version: int
    status: VersionStatus
    creator: str
    created_at: float
    updated_at: float
    updated_by: str
    description: str = ""
    source: str = ""
    run_id: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    details: JsonObject = field(default_factory=dict)
    """Wire fields that are kept and echoed: run_tracking_server_id, model_id, …"""


@dataclass(frozen=True, slots=True)
class Tracked:
    """An experiment, a run or a logged model of MLflow."""

    workspace: str
    kind: str
    """`experiment`, `run` or `model`."""
    id: str
    parent: str
    """Id of the experiment; empty for an experiment."""
    document: JsonObject
    """As the wire shows it."""
