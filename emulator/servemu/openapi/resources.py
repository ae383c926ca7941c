"""What the control plane and the emulator's switches answer, described (facts/control_plane §2).

Nothing is parsed with these. What is required here is there always.
"""

from typing import Literal

from servemu.openapi.answers import Described

Json = dict[str, object]


class Empty(Described):
    """`{}`."""


class State(Described):
    ready: Literal["READY", "NOT_READY"]
    config_update: Literal["NOT_UPDATING", "IN_PROGRESS", "UPDATE_FAILED", "UPDATE_CANCELED"]
    suspend: Literal["NOT_SUSPENDED", "STOPPED"] = "NOT_SUSPENDED"


class EntityStatus(Described):
    deployment: str
    deployment_state_message: str


class Entity(Described):
    name: str
    entity_name: str | None = None
    entity_version: str | None = None
    state: EntityStatus | None = None
    """Absent of pay-per-token endpoints, and in lists."""


class Model(Described):
    name: str
    model_name: str | None = None
    model_version: str | None = None


class RouteShown(Described):
    traffic_percentage: int
    served_entity_name: str
    served_model_name: str


class Traffic(Described):
    routes: list[RouteShown]


class Config(Described):
    served_entities: list[Entity]
    served_models: list[Model] = []
    traffic_config: Traffic | None = None
    config_version: int | None = None


class PendingConfig(Config):
    start_time: int
    """ms."""


class TagShown(Described):
    key: str
    value: str


class Endpoint(Described):
    """ServingEndpointDetailed. Pay-per-token endpoints have no `id`, no `creator`, no tags."""

    name: str
    id: str | None = None
    creator: str | None = None
    creation_timestamp: int
    last_updated_timestamp: int
    """ms."""
    state: State
    config: Config | None = None
    pending_config: PendingConfig | None = None
    permission_level: Literal["CAN_VIEW", "CAN_QUERY", "CAN_MANAGE"]
    task: str | None = None
    tags: list[TagShown] = []


class Endpoints(Described):
    endpoints: list[Endpoint]


class FoundationModels(Described):
    endpoints: list[Json]


class Tags(Described):
    tags: list[TagShown]


class RateLimits(Described):
    rate_limits: list[Json]


class Notifications(Described):
    name: str
    email_notifications: Json


class OptimizationInfo(Described):
    optimizable: bool
    model_type: str = ""
    throughput_chunk_size: int = 0
    model_unit_chunk_size: int = 0


class EventShown(Described):
    event_type: str
    status: str
    message: str
    timestamp: int
    """ms."""


class Events(Described):
    events: list[EventShown]


class Logs(Described):
    logs: str


class Permissions(Described):
    object_id: str
    object_type: Literal["serving-endpoint"]
    access_control_list: list[Json]


class PermissionLevel(Described):
    permission_level: str
    description: str


class PermissionLevels(Described):
    permission_levels: list[PermissionLevel]


class OAuthError(Described):
    error: str
    error_description: str


class Token(Described):
    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int


class Health(Described):
    status: Literal["ok"]
    version: str
    engine: str
    database: str
    endpoints: int
    speedup: float
    uptime_seconds: float


class FaultRule(Described):
    id: str
    matched: int
    fired: int
    remaining: int | None
    last_request_id: str | None


class FaultRules(Described):
    faults: list[FaultRule]


class Presets(Described):
    presets: list[Json]


class ScriptedReply(Described):
    id: str
    source: str
    used: int
    remaining: int | None


class ScriptedReplies(Described):
    replies: list[ScriptedReply]


class Time(Described):
    now: float
    advanced_by: float
    speedup: float


class StoredModel(Described):
    name: str
    resident: bool


class Models(Described):
    models: list[StoredModel]


class RequestShown(Described):
    """Of the journal; times in seconds."""

    number: int
    request_id: str
    at: float
    operation: str
    endpoint: str
    status: int | None
    attempt: int


class Requests(Described):
    requests: list[RequestShown]
    next_since: int


class FindingShown(Described):
    code: str
    grade: Literal["error", "warning", "note"]
    endpoint: str
    message: str
    advice: str
    requests: list[str]
    rules: list[str]


class QueueShown(Described):
    """Waits in seconds, of the requests that were admitted in the last minute."""

    requests: int
    tokens: float
    wait_p50: float | None
    wait_p95: float | None


class WindowShown(Described):
    """Rates in tokens/s, input and output; `error_percent` is null without enough demand."""

    seconds: float
    measured_seconds: float
    provisioned: float
    processed: float
    delivered: float
    demand: float
    error_percent: float | None
    refused: int


class ReplicasShown(Described):
    current: int
    minimum: int
    maximum: int


class EntityCertificate(Described):
    """`provisioned` in tokens/s; null: unlimited."""

    name: str
    provisioned: float | None
    burst: float | None
    engine_bound: bool
    replicas: ReplicasShown | None
    in_flight: int
    queue: QueueShown
    refused: int
    windows: list[WindowShown]


class CertificateShown(Described):
    """The sum over the served entities, and each of them."""

    endpoint: str
    config_version: int | None
    at: float
    throughput_scale: float
    provisioned: float | None
    burst: float | None
    engine_bound: bool
    replicas: ReplicasShown | None
    in_flight: int
    queue: QueueShown
    refused: int
    windows: list[WindowShown]
    entities: list[EntityCertificate]


class Certificates(Described):
    throughput: list[CertificateShown]


class Verdict(Described):
    grade: Literal["pass", "warn", "fail"]
    findings: list[FindingShown]
    thresholds: Json
    requests: int
    event_log_hash: str


class EventLogHash(Described):
    hash: str
    events: int
    seed: int | None


class Reset(Described):
    endpoints: int


class SnapshotShown(Described):
    name: str
    taken_at: float
    endpoints: list[str]
    faults: int


class Snapshots(Described):
    snapshots: list[SnapshotShown]
