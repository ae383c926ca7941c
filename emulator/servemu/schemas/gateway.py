"""AI Gateway and rate limits of an endpoint (facts/control_plane §2.6)."""

from typing import Literal, Self

from pydantic import StrictBool, model_validator
from pydantic_core import PydanticCustomError

from servemu.schemas.wire import NotNegative, Wire

Words = tuple[str, ...]


class Switch(Wire):
    """`fallback_config`, `usage_tracking_config`."""

    enabled: StrictBool


class UsageTracking(Wire):
    enabled: StrictBool | None = None


class Pii(Wire):
    behavior: Literal["NONE", "BLOCK", "MASK"] | None = None


class GuardrailParameters(Wire):
    """What is watched in one direction."""

    invalid_keywords: Words | None = None
    valid_topics: Words | None = None
    safety: StrictBool | None = None
    pii: Pii | None = None


class Guardrails(Wire):
    input: GuardrailParameters | None = None
    output: GuardrailParameters | None = None


class InferenceTable(Wire):
    catalog_name: str | None = None
    schema_name: str | None = None
    table_name_prefix: str | None = None
    enabled: StrictBool | None = None

    @model_validator(mode="after")
    def _enabled_says_where(self) -> Self:
        """Rule: docstring of databricks-sdk `AiGatewayInferenceTableConfig`; text GUESS."""
        if self.enabled and not (self.catalog_name and self.schema_name):
            raise PydanticCustomError(
                "inference_table", "catalog_name and schema_name are required to enable it"
            )
        return self


class GatewayRateLimit(Wire):
    """Neither `calls` nor `tokens`: Terraform leaves a 0 out."""

    calls: NotNegative | None = None
    tokens: NotNegative | None = None
    key: Literal["user", "endpoint", "user_group", "service_principal"] | None = None
    principal: str | None = None
    renewal_period: Literal["minute"]

    @model_validator(mode="after")
    def _principal_of_its_kind(self) -> Self:
        """A user may be named too (docstring of databricks-sdk `AiGatewayRateLimit`).

        That a group must be is a GUESS, as are the texts.
        """
        if self.principal and self.key in (None, "endpoint"):
            raise PydanticCustomError("principal", "the key endpoint has no principal")
        if self.key in ("user_group", "service_principal") and not self.principal:
            raise PydanticCustomError("principal", "this key needs a principal")
        return self


class AiGateway(Wire):
    """The whole configuration: a PUT replaces it, an empty one clears it."""

    fallback_config: Switch | None = None
    guardrails: Guardrails | None = None
    inference_table_config: InferenceTable | None = None
    rate_limits: tuple[GatewayRateLimit, ...] | None = None
    usage_tracking_config: UsageTracking | None = None


class RateLimit(Wire):
    """The older, deprecated limit."""

    calls: NotNegative
    key: Literal["user", "endpoint"] | None = None
    renewal_period: Literal["minute"]


class PutRateLimits(Wire):
    rate_limits: tuple[RateLimit, ...] = ()
