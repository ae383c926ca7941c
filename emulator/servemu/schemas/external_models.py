"""External models: a provider, and how it is reached (facts/control_plane §2.5).

A field with a twin `…_plaintext` is a secret: the twin is write-only.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator

from servemu.schemas.wire import Wire

PLAINTEXT = "_plaintext"


def _lower(given: object) -> object:
    return given.lower() if isinstance(given, str) else given


Provider = Literal[
    "ai21labs",
    "amazon-bedrock",
    "anthropic",
    "cohere",
    "custom",
    "databricks-model-serving",
    "google-cloud-vertex-ai",
    "openai",
    "palm",
]

BedrockProvider = Annotated[
    Literal["ai21labs", "amazon", "anthropic", "cohere"], BeforeValidator(_lower)
]
"""In any case of letters (docstring of databricks-sdk `AmazonBedrockConfig`)."""

CONFIG_OF: Mapping[str, str] = {
    "ai21labs": "ai21labs_config",
    "amazon-bedrock": "amazon_bedrock_config",
    "anthropic": "anthropic_config",
    "cohere": "cohere_config",
    "custom": "custom_provider_config",
    "databricks-model-serving": "databricks_model_serving_config",
    "google-cloud-vertex-ai": "google_cloud_vertex_ai_config",
    "openai": "openai_config",
    "palm": "palm_config",
}
"""Provider → the one config it goes with."""


class ProviderConfig(Wire):
    """`needs`: the secrets that must be given, as a reference or in plain text."""

    needs: ClassVar[tuple[str, ...]] = ()

    def needed(self) -> tuple[str, ...]:
        """The secrets and fields that this config cannot do without."""
        return self.needs


class Ai21Labs(ProviderConfig):
    needs = ("ai21labs_api_key",)
    ai21labs_api_key: str | None = None
    ai21labs_api_key_plaintext: str | None = None


class AmazonBedrock(ProviderConfig):
    aws_region: str
    bedrock_provider: BedrockProvider
    aws_access_key_id: str | None = None
    aws_access_key_id_plaintext: str | None = None
    aws_secret_access_key: str | None = None
    aws_secret_access_key_plaintext: str | None = None
    instance_profile_arn: str | None = None
    uc_service_credential_name: str | None = None

    def needed(self) -> tuple[str, ...]:
        if self.instance_profile_arn or self.uc_service_credential_name:
            return ()
        return ("aws_access_key_id", "aws_secret_access_key")


class Anthropic(ProviderConfig):
    needs = ("anthropic_api_key",)
    anthropic_api_key: str | None = None
    anthropic_api_key_plaintext: str | None = None


class Cohere(ProviderConfig):
    needs = ("cohere_api_key",)
    cohere_api_key: str | None = None
    cohere_api_key_plaintext: str | None = None
    cohere_api_base: str | None = None


class ApiKeyAuth(ProviderConfig):
    needs = ("value",)
    key: str
    value: str | None = None
    value_plaintext: str | None = None


class BearerTokenAuth(ProviderConfig):
    needs = ("token",)
    token: str | None = None
    token_plaintext: str | None = None


class CustomProvider(ProviderConfig):
    custom_provider_url: str
    api_key_auth: ApiKeyAuth | None = None
    bearer_token_auth: BearerTokenAuth | None = None


class DatabricksModelServing(ProviderConfig):
    needs = ("databricks_api_token",)
    databricks_workspace_url: str
    databricks_api_token: str | None = None
    databricks_api_token_plaintext: str | None = None


class GoogleCloudVertexAi(ProviderConfig):
    needs = ("private_key",)
    project_id: str
    region: str
    private_key: str | None = None
    private_key_plaintext: str | None = None


class OpenAi(ProviderConfig):
    openai_api_type: Literal["openai", "azure", "azuread"] | None = None
    openai_api_key: str | None = None
    openai_api_key_plaintext: str | None = None
    openai_api_base: str | None = None
    openai_api_version: str | None = None
    openai_deployment_name: str | None = None
    openai_organization: str | None = None
    microsoft_entra_tenant_id: str | None = None
    microsoft_entra_client_id: str | None = None
    microsoft_entra_client_secret: str | None = None
    microsoft_entra_client_secret_plaintext: str | None = None

    def needed(self) -> tuple[str, ...]:
        """Docstrings of databricks-sdk `OpenAiConfig`: required for Azure, for Entra ID."""
        azure = ("openai_api_base", "openai_api_version", "openai_deployment_name")
        match self.openai_api_type:
            case "azure":
                return ("openai_api_key", *azure)
            case "azuread":
                entra = ("tenant_id", "client_id", "client_secret")
                return (*(f"microsoft_entra_{part}" for part in entra), *azure)
        return ("openai_api_key",)


class Palm(ProviderConfig):
    needs = ("palm_api_key",)
    palm_api_key: str | None = None
    palm_api_key_plaintext: str | None = None


class ExternalModel(Wire):
    """One `<provider>_config` goes with the provider."""

    provider: Provider
    name: str
    task: str
    ai21labs_config: Ai21Labs | None = None
    amazon_bedrock_config: AmazonBedrock | None = None
    anthropic_config: Anthropic | None = None
    cohere_config: Cohere | None = None
    custom_provider_config: CustomProvider | None = None
    databricks_model_serving_config: DatabricksModelServing | None = None
    google_cloud_vertex_ai_config: GoogleCloudVertexAi | None = None
    openai_config: OpenAi | None = None
    palm_config: Palm | None = None
