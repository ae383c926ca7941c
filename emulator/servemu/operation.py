"""The name of what a request asks for: what journal, verdict and fault rules call it (design §10).

`serving-endpoints.<method of databricks-sdk>`, `invocations` for every query, `registry.<call>`,
`tracking.<call>`; the endpoint that the path names, where it names one.
"""

import re
from functools import cache, lru_cache

from servemu.registry.operations import OPERATIONS

OTHER = "other"
"""A path that is not emulated."""

_API = r"/api/2\.0/serving-endpoints"
_NAME = r"/(?P<name>[^/]+)"
_ENTITY = _API + _NAME + r"/served-models/[^/]+"
_PERMISSIONS = r"/api/2\.0/permissions/serving-endpoints/[^/]+"

_TABLE = tuple(
    (methods.split("|"), path, name)
    for methods, path, name in (
        ("GET", _API, "serving-endpoints.list"),
        ("POST", _API, "serving-endpoints.create"),
        ("GET", _API + ":foundation-models", "serving-endpoints.list_foundation_models"),
        ("GET", _API + r"/get-model-optimization-info/.+", "serving-endpoints.optimization_info"),
        ("POST", _API + "/pt", "serving-endpoints.create_provisioned_throughput_endpoint"),
        (
            "PUT",
            _API + "/pt" + _NAME + "/config",
            "serving-endpoints.update_provisioned_throughput_endpoint_config",
        ),
        ("GET", _API + _NAME, "serving-endpoints.get"),
        ("DELETE", _API + _NAME, "serving-endpoints.delete"),
        ("PUT", _API + _NAME + "/config", "serving-endpoints.update_config"),
        ("POST", _API + _NAME + "/config:stop", "serving-endpoints.stop"),
        ("POST", _API + _NAME + "/config:start", "serving-endpoints.start"),
        ("PATCH", _API + _NAME + "/tags", "serving-endpoints.patch"),
        ("GET", _API + _NAME + "/events", "serving-endpoints.events"),
        ("GET", _API + _NAME + "/metrics", "serving-endpoints.export_metrics"),
        ("GET", _API + _NAME + "/openapi", "serving-endpoints.get_open_api"),
        ("GET", _ENTITY + "/logs", "serving-endpoints.logs"),
        ("GET", _ENTITY + "/build-logs", "serving-endpoints.build_logs"),
        ("PUT", _API + _NAME + "/rate-limits", "serving-endpoints.put"),
        ("PUT", _API + _NAME + "/ai-gateway", "serving-endpoints.put_ai_gateway"),
        ("PATCH", _API + _NAME + "/notifications", "serving-endpoints.update_notifications"),
        ("PATCH", _API + _NAME + "/telemetry-config", "serving-endpoints.update_telemetry_config"),
        ("GET", _PERMISSIONS, "serving-endpoints.get_permissions"),
        ("PUT", _PERMISSIONS, "serving-endpoints.set_permissions"),
        ("PATCH", _PERMISSIONS, "serving-endpoints.update_permissions"),
        ("GET", _PERMISSIONS + "/permissionLevels", "serving-endpoints.get_permission_levels"),
        ("POST", r"/api/2\.0/external-function", "serving-endpoints.http_request"),
        ("POST", r"(/route-optimized/[^/]+)?/serving-endpoints" + _NAME + "/.*", "invocations"),
        ("POST", r"/ai-gateway/mlflow/v1/.+", "invocations"),
        ("POST", r"/oidc/v1/token", "oauth.token"),
        ("GET", r"/api/2\.0/preview/scim/v2/Me", "current-user.me"),
        *OPERATIONS,
    )
)
NAMES = frozenset(name for _, _, name in _TABLE)
"""What fault rules can name."""
_BY_BODY = frozenset({"anthropic", "chat", "completions", "embeddings", "responses"})
"""What follows `/serving-endpoints/` where the body names the endpoint."""


def operation_of(method: str, path: str) -> str:
    """The operation's name; `other` for what is not emulated."""
    return _found(method, path)[0]


def endpoint_of(method: str, path: str) -> str:
    """The endpoint that the path names; empty: the body does, or nothing."""
    return _found(method, path)[1]


@lru_cache(maxsize=4096)
def _found(method: str, path: str) -> tuple[str, str]:
    path = path.rstrip("/")
    if method == "POST" and path.removeprefix("/serving-endpoints/").split("/")[0] in _BY_BODY:
        return "invocations", ""
    for methods, pattern, operation in _TABLE:
        match = _compiled(pattern).fullmatch(path) if method in methods else None
        if match is not None:
            return operation, match.groupdict().get("name") or ""
    return OTHER, ""


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """By the first path that comes so far in the table: a start waits for none of them."""
    return re.compile(pattern)
