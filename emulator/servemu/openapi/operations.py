"""What each route takes and answers: one row a route, by method and path.

A route without a row is in the document as well, with a JSON object for a body and an answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, JsonValue

from servemu.openapi import resources
from servemu.openapi.answers import (
    ChatAnswer,
    CompletionsAnswer,
    EmbeddingsAnswer,
    Error,
    MessagesAnswer,
    PredictionsAnswer,
    ResponsesAnswer,
)
from servemu.schemas.chat import ChatRequest
from servemu.schemas.completions import CompletionsRequest
from servemu.schemas.control import Advance, Pull
from servemu.schemas.effects import Effect
from servemu.schemas.embeddings import EmbeddingsRequest
from servemu.schemas.endpoints import ConfigInput, CreateEndpoint, PatchTags
from servemu.schemas.faults import Rule
from servemu.schemas.gateway import AiGateway, PutRateLimits
from servemu.schemas.messages import MessagesRequest
from servemu.schemas.permissions import AccessControlList
from servemu.schemas.provisioned_throughput import CreatePtEndpoint, UpdatePtConfig
from servemu.schemas.replies import Reply
from servemu.schemas.responses import ResponsesRequest
from servemu.schemas.snapshots import Document
from servemu.schemas.telemetry import PatchNotifications, PatchTelemetry

Schema = type[BaseModel]
JSON = "application/json"
TEXT = "text/plain"
FORM = "application/x-www-form-urlencoded"
SSE = "text/event-stream"
BYTES = "application/octet-stream"
XML = "application/xml"


class RuleInput(Rule):
    """A rule as it is added: `preset` brings what is not given."""

    effect: Effect | None = None  # type: ignore[assignment]


class PredictionsRequest(BaseModel):
    """Exactly one of the inputs; custom models take it."""

    dataframe_split: dict[str, JsonValue] | None = None
    dataframe_records: list[dict[str, JsonValue]] | None = None
    instances: JsonValue = None
    inputs: JsonValue = None
    params: dict[str, JsonValue] | None = None


class TokenRequest(BaseModel):
    """RFC 6749; the client may also identify itself by Basic authentication."""

    grant_type: str
    scope: str | None = None
    assertion: str | None = None
    authorization_details: str | None = None
    client_id: str | None = None
    client_secret: str | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """`answers` and `takes`: any of these schemas. None of `answers`: text."""

    answers: tuple[Schema, ...] = ()
    takes: tuple[Schema, ...] = ()
    media_type: str = JSON
    """Of the body that is taken."""
    answer_type: str = JSON
    query: tuple[str, ...] = ()
    """Names of whole numbers that may be given."""
    texts: tuple[str, ...] = ()
    """Names of texts that may be given in the query."""
    error: Schema = Error
    error_type: str = JSON
    streams: bool = False
    is_empty: bool = False
    """Answers 204 and no body."""


ENDPOINTS = "/api/2.0/serving-endpoints"
ENDPOINT = f"{ENDPOINTS}/{{name}}"
ENTITY = f"{ENDPOINT}/served-models/{{entity}}"
PERMISSIONS = "/api/2.0/permissions/serving-endpoints/{id}"
DATA = "/serving-endpoints"
FILES = "/api/2.0/fs"
PRESIGNED = "/presigned/{signature}/{body}"
GATEWAY = "/ai-gateway/mlflow/v1"
EMULATOR = "/_emulator"

BY_TASK = Operation(
    answers=(ChatAnswer, CompletionsAnswer, EmbeddingsAnswer, PredictionsAnswer),
    takes=(ChatRequest, CompletionsRequest, EmbeddingsRequest, PredictionsRequest),
    streams=True,
)
ENDPOINT_SHOWN = Operation((resources.Endpoint,))

OPERATIONS: Mapping[str, Operation] = {
    f"GET {ENDPOINTS}": Operation((resources.Endpoints,)),
    f"POST {ENDPOINTS}": Operation((resources.Endpoint,), (CreateEndpoint,)),
    f"GET {ENDPOINTS}:foundation-models": Operation((resources.FoundationModels,)),
    f"POST {ENDPOINTS}/pt": Operation((resources.Endpoint,), (CreatePtEndpoint,)),
    f"PUT {ENDPOINTS}/pt/{{name}}/config": Operation((resources.Endpoint,), (UpdatePtConfig,)),
    f"GET {ENDPOINTS}/get-model-optimization-info/{{model}}/{{version}}": Operation(
        (resources.OptimizationInfo,)
    ),
    f"GET {ENDPOINT}": ENDPOINT_SHOWN,
    f"DELETE {ENDPOINT}": Operation((resources.Empty,)),
    f"PUT {ENDPOINT}/config": Operation((resources.Endpoint,), (ConfigInput,)),
    f"POST {ENDPOINT}/config:stop": ENDPOINT_SHOWN,
    f"POST {ENDPOINT}/config:start": ENDPOINT_SHOWN,
    f"PATCH {ENDPOINT}/tags": Operation((resources.Tags,), (PatchTags,)),
    f"PUT {ENDPOINT}/rate-limits": Operation((resources.RateLimits,), (PutRateLimits,)),
    f"PUT {ENDPOINT}/ai-gateway": Operation((AiGateway,), (AiGateway,)),
    f"PATCH {ENDPOINT}/notifications": Operation((resources.Notifications,), (PatchNotifications,)),
    f"PATCH {ENDPOINT}/telemetry-config": Operation((resources.Endpoint,), (PatchTelemetry,)),
    f"GET {ENDPOINT}/events": Operation((resources.Events,), query=("limit",)),
    f"GET {ENDPOINT}/metrics": Operation(answer_type=TEXT),
    f"GET {ENDPOINT}/openapi": Operation(),
    f"GET {ENTITY}/logs": Operation((resources.Logs,), query=("config_version",)),
    f"GET {ENTITY}/build-logs": Operation((resources.Logs,), query=("config_version",)),
    f"GET {PERMISSIONS}": Operation((resources.Permissions,)),
    f"PUT {PERMISSIONS}": Operation((resources.Permissions,), (AccessControlList,)),
    f"PATCH {PERMISSIONS}": Operation((resources.Permissions,), (AccessControlList,)),
    f"GET {PERMISSIONS}/permissionLevels": Operation((resources.PermissionLevels,)),
    f"POST {DATA}/chat/completions": Operation((ChatAnswer,), (ChatRequest,), streams=True),
    f"POST {DATA}/completions": Operation(
        (CompletionsAnswer,), (CompletionsRequest,), streams=True
    ),
    f"POST {DATA}/embeddings": Operation((EmbeddingsAnswer,), (EmbeddingsRequest,)),
    f"POST {DATA}/responses": Operation((ResponsesAnswer,), (ResponsesRequest,), streams=True),
    f"POST {DATA}/anthropic/v1/messages": Operation(
        (MessagesAnswer,), (MessagesRequest,), streams=True
    ),
    f"POST {GATEWAY}/chat/completions": Operation((ChatAnswer,), (ChatRequest,), streams=True),
    f"POST {GATEWAY}/embeddings": Operation((EmbeddingsAnswer,), (EmbeddingsRequest,)),
    f"POST {GATEWAY}/responses": Operation((ResponsesAnswer,), (ResponsesRequest,), streams=True),
    f"POST {DATA}/{{name}}/invocations": BY_TASK,
    f"POST {DATA}/{{name}}/served-models/{{entity}}/invocations": BY_TASK,
    f"POST /route-optimized/{{id}}{DATA}/{{name}}/invocations": BY_TASK,
    f"GET {FILES}/files/{{path}}": Operation(answer_type=BYTES),
    f"PUT {FILES}/files/{{path}}": Operation(media_type=BYTES, is_empty=True),
    f"DELETE {FILES}/files/{{path}}": Operation(is_empty=True),
    f"PUT {FILES}/directories/{{path}}": Operation(is_empty=True),
    f"GET {PRESIGNED}": Operation(answer_type=BYTES, error_type=XML),
    f"PUT {PRESIGNED}": Operation(media_type=BYTES, answer_type=BYTES, error_type=XML),
    f"DELETE {PRESIGNED}": Operation(is_empty=True, error_type=XML),
    "POST /oidc/v1/token": Operation(
        (resources.Token,), (TokenRequest,), FORM, error=resources.OAuthError
    ),
    f"GET {EMULATOR}/health": Operation((resources.Health,)),
    f"GET {EMULATOR}/faults": Operation((resources.FaultRules,)),
    f"POST {EMULATOR}/faults": Operation((resources.FaultRule,), (RuleInput,)),
    f"DELETE {EMULATOR}/faults": Operation((resources.Empty,)),
    f"GET {EMULATOR}/faults/{{id}}": Operation((resources.FaultRule,)),
    f"DELETE {EMULATOR}/faults/{{id}}": Operation((resources.Empty,)),
    f"GET {EMULATOR}/presets": Operation((resources.Presets,)),
    f"GET {EMULATOR}/replies": Operation((resources.ScriptedReplies,)),
    f"POST {EMULATOR}/replies": Operation((resources.ScriptedReply,), (Reply,)),
    f"DELETE {EMULATOR}/replies": Operation((resources.Empty,)),
    f"GET {EMULATOR}/replies/{{id}}": Operation((resources.ScriptedReply,)),
    f"DELETE {EMULATOR}/replies/{{id}}": Operation((resources.Empty,)),
    f"GET {EMULATOR}/clock": Operation((resources.Time,)),
    f"POST {EMULATOR}/clock/advance": Operation((resources.Time,), (Advance,)),
    f"GET {EMULATOR}/throughput": Operation((resources.Certificates,)),
    f"GET {EMULATOR}/throughput/{{name}}": Operation((resources.CertificateShown,)),
    f"GET {EMULATOR}/verdict": Operation((resources.Verdict,)),
    f"GET {EMULATOR}/events/hash": Operation((resources.EventLogHash,)),
    f"POST {EMULATOR}/reset": Operation((resources.Reset,)),
    f"GET {EMULATOR}/snapshots": Operation((resources.Snapshots,)),
    f"POST {EMULATOR}/snapshots/{{name}}": Operation((resources.SnapshotShown,), (Document,)),
    f"GET {EMULATOR}/snapshots/{{name}}": Operation((Document,)),
    f"DELETE {EMULATOR}/snapshots/{{name}}": Operation((resources.Empty,)),
    f"POST {EMULATOR}/snapshots/{{name}}/restore": Operation((resources.SnapshotShown,)),
    f"GET {EMULATOR}/requests": Operation(
        (resources.Requests,),
        query=("since", "limit", "wait"),
        texts=("operation", "endpoint", "status"),
    ),
    f"GET {EMULATOR}/models": Operation((resources.Models,)),
    f"POST {EMULATOR}/models": Operation((resources.StoredModel,), (Pull,)),
    f"GET {EMULATOR}/models/{{name}}": Operation((resources.StoredModel,)),
    f"DELETE {EMULATOR}/models/{{name}}": Operation((resources.Empty,)),
}
