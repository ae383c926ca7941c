"""Every failure the wire can show, and the one table that gives each its status and error_code.

ApiError
├── front door, before any route (error_code is a number: facts/control_plane §4)
│   ├── CredentialMissing           401
│   └── CredentialInvalid           403
├── PathNotFound                    404 ENDPOINT_NOT_FOUND
├── ControlPlaneError               carries `details: [RequestInfo]`
│   ├── MalformedRequest            400 MALFORMED_REQUEST
│   ├── InvalidParameter            400 INVALID_PARAMETER_VALUE
│   ├── PermissionDenied            403 PERMISSION_DENIED
│   ├── EndpointNotFound            404 RESOURCE_DOES_NOT_EXIST
│   ├── ModelNotFound               404 RESOURCE_DOES_NOT_EXIST
│   ├── CatalogNotFound             404 RESOURCE_DOES_NOT_EXIST
│   ├── AliasNotFound               404 RESOURCE_DOES_NOT_EXIST
│   ├── ArtifactNotFound            404 NOT_FOUND
│   ├── UploadNotFound              404 NOT_FOUND
│   ├── DiskFull                    507 RESOURCE_EXHAUSTED
│   ├── RegisteredModelExists       400 RESOURCE_ALREADY_EXISTS
│   ├── TrackedExists               400 RESOURCE_ALREADY_EXISTS
│   ├── ModelInUse                  409 RESOURCE_CONFLICT
│   ├── ResourceNotFound            404 RESOURCE_DOES_NOT_EXIST
│   ├── EndpointExists              409 RESOURCE_ALREADY_EXISTS
│   ├── ScriptedReplyExists         409 RESOURCE_ALREADY_EXISTS
│   ├── StoredModelExists           409 RESOURCE_ALREADY_EXISTS
│   ├── StoredModelInUse            409 RESOURCE_CONFLICT
│   └── UpdateInProgress            409 RESOURCE_CONFLICT
└── data plane
    ├── BadRequest                  400 BAD_REQUEST
    ├── JsonObjectRefused           400 INVALID_PARAMETER_VALUE
    ├── EndpointStopped             400 BAD_REQUEST
    ├── InvocationDenied            403 PERMISSION_DENIED
    ├── InvocationEndpointNotFound  404 ENDPOINT_NOT_FOUND
    ├── EndpointNotReady            404 RESOURCE_DOES_NOT_EXIST
    ├── RequestTimedOut             408 REQUEST_TIMEOUT
    ├── PayloadTooLarge             413 BAD_REQUEST
    ├── RequestLimitExceeded        429 REQUEST_LIMIT_EXCEEDED
    ├── InternalError               500 INTERNAL_ERROR
    ├── ModelServerUnavailable      503 TEMPORARILY_UNAVAILABLE
    └── ScriptedError               its own status and code

OAuth has a shape of its own: `servemu.routes.oauth.Refused`.
"""

from collections.abc import Mapping


class ApiError(Exception):
    """A failure with a place on the wire. `headers` are added to the answer."""

    def __init__(self, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.headers: Mapping[str, str] = headers or {}

    @property
    def status(self) -> int:
        return WIRE[type(self)][0]

    @property
    def error_code(self) -> str | int:
        return WIRE[type(self)][1]


class CredentialMissing(ApiError):
    def __init__(self) -> None:
        super().__init__(
            "Credential was not sent or was of an unsupported type for this API.",
            {"WWW-Authenticate": 'Bearer realm="DatabricksRealm"'},
        )


class CredentialInvalid(ApiError):
    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"Invalid access token. [ReqId: {request_id}]",
            {"X-Databricks-Reason-Phrase": "Invalid access token."},
        )


class PathNotFound(ApiError):
    """`why` tells a person what the emulator has instead; the body is the real service's."""

    def __init__(self, method: str, path: str, why: str) -> None:
        super().__init__(f"No API found for '{method} {path}'", {"X-Emulator-Why": why})


class ControlPlaneError(ApiError):
    """A failure whose body carries a google.rpc RequestInfo (facts/control_plane §4)."""


class MalformedRequest(ControlPlaneError):
    def __init__(
        self,
        message: str = "Invalid JSON given in the body of the request - failed to parse given JSON",
    ) -> None:
        super().__init__(message)


class InvalidParameter(ControlPlaneError):
    """A value the service refuses; the message names the field and what was given."""


class PermissionDenied(ControlPlaneError):
    """The caller may not do this to that endpoint."""


class EndpointNotFound(ControlPlaneError):
    def __init__(self, name: str) -> None:
        super().__init__(f"Endpoint with name '{name}' does not exist.")


class ModelNotFound(ControlPlaneError):
    """Unknown model: the real Unity Catalog text. Unknown version: GUESS after the same pattern."""

    def __init__(self, name: str, version: str | None = None) -> None:
        if version is None:
            super().__init__(f"Routine or Model '{name}' does not exist.")
        else:
            super().__init__(f"Model Version (name='{name}', version={version}) does not exist.")


class CatalogNotFound(ControlPlaneError):
    """No such catalog or schema. Text GUESS."""


class AliasNotFound(ControlPlaneError):
    """Text GUESS."""

    def __init__(self, name: str, alias: str) -> None:
        super().__init__(f"Alias '{alias}' does not exist on Routine or Model '{name}'.")


class ArtifactNotFound(ControlPlaneError):
    """The code decides: MLflow takes exactly NOT_FOUND for "a file" (facts/uc_registry §1.3)."""

    def __init__(self, path: str) -> None:
        super().__init__(f"The file or directory {ascii(path[:200])} does not exist.")


class UploadNotFound(ControlPlaneError):
    def __init__(self) -> None:
        super().__init__("The upload session is not open.")


class DiskFull(ControlPlaneError):
    """Ours: no client retries a 507."""

    def __init__(self, why: str) -> None:
        super().__init__(f"The emulator cannot store the file: {why}.")


class RegisteredModelExists(ControlPlaneError):
    """MLflow reads the code alone, and goes on (facts/uc_registry §1.1). Text GUESS."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Routine or Model '{name}' already exists.")


class TrackedExists(ControlPlaneError):
    """An experiment of that name is there."""


class ModelInUse(ControlPlaneError):
    """Refused while an endpoint serves it: ours, the real service's answer is not known."""

    def __init__(self, name: str, version: str | None, endpoint: str) -> None:
        of = "" if version is None else f" version {version}"
        super().__init__(
            f"Model '{name}'{of} is served by endpoint '{endpoint}'. Delete the endpoint first."
        )


class ResourceNotFound(ControlPlaneError):
    """Something other than an endpoint or a model is not there."""


class EndpointExists(ControlPlaneError):
    """Text and status GUESS after the Databricks CLI's test server (facts/control_plane §4)."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Serving endpoint with name {name} already exists")


class ScriptedReplyExists(ControlPlaneError):
    def __init__(self, reply_id: str) -> None:
        super().__init__(f"Scripted reply with id '{reply_id}' already exists.")


class StoredModelExists(ControlPlaneError):
    """Ours: another model of the store has the name."""


class StoredModelInUse(ControlPlaneError):
    """Ours: its weights are in memory, or an endpoint will want them there again."""

    def __init__(self, name: str, why: str = "is in memory or being loaded") -> None:
        super().__init__(f"Model '{name}' {why}, and cannot be removed.")


class UpdateInProgress(ControlPlaneError):
    def __init__(
        self, message: str = "Endpoint served entities are currently being updated"
    ) -> None:
        super().__init__(message)


class BadRequest(ApiError):
    """A request the model server refuses."""


class JsonObjectRefused(ApiError):
    """Claude answers no free JSON; real text and code (facts/data_plane §2.5)."""

    def __init__(self) -> None:
        super().__init__(
            "INVALID_PARAMETER_VALUE: Response format type json_object is not supported for this "
            "model."
        )


class EndpointStopped(ApiError):
    """Real text (facts/control_plane §3)."""

    def __init__(self) -> None:
        super().__init__("The given endpoint is stopped, please retry after starting the endpoint.")


class InvocationDenied(ApiError):
    """Text LIVE for 'View', GUESS for 'Query' (facts/data_plane §5)."""

    def __init__(self, name: str) -> None:
        super().__init__(f"User does not have permission 'Query' on Endpoint {name}")


class InvocationEndpointNotFound(ApiError):
    def __init__(self) -> None:
        super().__init__(
            "The given endpoint does not exist, please retry after checking the specified model "
            "and version deployment exists."
        )


class EndpointNotReady(ApiError):
    """Never came up. Status by the docs, text GUESS (facts/data_plane §5)."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Endpoint with name '{name}' is not ready. Check that it exists and is Ready."
        )


class RequestTimedOut(ApiError):
    def __init__(self) -> None:
        super().__init__("Request timed out.")


class PayloadTooLarge(ApiError):
    """No recorded body exists: GUESS (facts/data_plane §5)."""

    def __init__(self, limit: int, given: int | None = None) -> None:
        size = "" if given is None else f" ({given} bytes)"
        super().__init__(f"Request body{size} exceeds the maximum of {limit} bytes.")


class RequestLimitExceeded(ApiError):
    """`retry_after` in whole seconds."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message, {"Retry-After": str(retry_after)})
        self.retry_after = retry_after


class InternalError(ApiError):
    def __init__(self) -> None:
        super().__init__("Internal server error.")


class ModelServerUnavailable(ApiError):
    """The model server behind the endpoint died or was shut down."""


class ScriptedError(ApiError):
    """What a scripted reply says instead of an answer; status and code are the reply's."""

    def __init__(
        self, status: int, error_code: str, message: str, headers: Mapping[str, str]
    ) -> None:
        super().__init__(message, headers)
        self._place = status, error_code

    @property
    def status(self) -> int:
        return self._place[0]

    @property
    def error_code(self) -> str:
        return self._place[1]


WIRE: Mapping[type[ApiError], tuple[int, str | int]] = {
    CredentialMissing: (401, 401),
    CredentialInvalid: (403, 403),
    PathNotFound: (404, "ENDPOINT_NOT_FOUND"),
    MalformedRequest: (400, "MALFORMED_REQUEST"),
    InvalidParameter: (400, "INVALID_PARAMETER_VALUE"),
    PermissionDenied: (403, "PERMISSION_DENIED"),
    EndpointNotFound: (404, "RESOURCE_DOES_NOT_EXIST"),
    ModelNotFound: (404, "RESOURCE_DOES_NOT_EXIST"),
    CatalogNotFound: (404, "RESOURCE_DOES_NOT_EXIST"),
    AliasNotFound: (404, "RESOURCE_DOES_NOT_EXIST"),
    ArtifactNotFound: (404, "NOT_FOUND"),
    UploadNotFound: (404, "NOT_FOUND"),
    DiskFull: (507, "RESOURCE_EXHAUSTED"),
    RegisteredModelExists: (400, "RESOURCE_ALREADY_EXISTS"),
    TrackedExists: (400, "RESOURCE_ALREADY_EXISTS"),
    ModelInUse: (409, "RESOURCE_CONFLICT"),
    ResourceNotFound: (404, "RESOURCE_DOES_NOT_EXIST"),
    EndpointExists: (409, "RESOURCE_ALREADY_EXISTS"),
    ScriptedReplyExists: (409, "RESOURCE_ALREADY_EXISTS"),
    StoredModelExists: (409, "RESOURCE_ALREADY_EXISTS"),
    StoredModelInUse: (409, "RESOURCE_CONFLICT"),
    UpdateInProgress: (409, "RESOURCE_CONFLICT"),
    BadRequest: (400, "BAD_REQUEST"),
    JsonObjectRefused: (400, "INVALID_PARAMETER_VALUE"),
    EndpointStopped: (400, "BAD_REQUEST"),
    InvocationDenied: (403, "PERMISSION_DENIED"),
    InvocationEndpointNotFound: (404, "ENDPOINT_NOT_FOUND"),
    EndpointNotReady: (404, "RESOURCE_DOES_NOT_EXIST"),
    RequestTimedOut: (408, "REQUEST_TIMEOUT"),
    PayloadTooLarge: (413, "BAD_REQUEST"),
    RequestLimitExceeded: (429, "REQUEST_LIMIT_EXCEEDED"),
    InternalError: (500, "INTERNAL_ERROR"),
    ModelServerUnavailable: (503, "TEMPORARILY_UNAVAILABLE"),
}


def wire_body(error: ApiError, request_id: str) -> dict[str, object]:
    """The JSON body of a failure (facts/control_plane §4)."""
    body: dict[str, object] = {"error_code": error.error_code, "message": error.message}
    if isinstance(error, ControlPlaneError):
        body["details"] = [
            {
                "@type": "type.googleapis.com/google.rpc.RequestInfo",
                "request_id": request_id,
                "serving_data": "",
            }
        ]
    return body
