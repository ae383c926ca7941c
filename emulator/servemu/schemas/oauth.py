"""What the OAuth token endpoint is asked (facts/data_plane §1.2, RFC 6749, RFC 7523, RFC 9396)."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Action = Literal["query_inference_endpoint", "manage_inference_endpoint"]


class AuthorizationDetail(BaseModel):
    """Right to one endpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    type: Literal["workspace_permission"]
    object_type: Literal["serving-endpoints"]
    object_path: str = Field(pattern=r"^/serving-endpoints/[0-9a-f]{32}$")
    actions: tuple[Action, ...] = Field(min_length=1)

    @property
    def endpoint_id(self) -> str:
        return self.object_path.rpartition("/")[2]


AUTHORIZATION_DETAILS = TypeAdapter(
    Annotated[tuple[AuthorizationDetail, ...], Field(min_length=1, max_length=1)],
    config=ConfigDict(defer_build=True),
)
"""A JSON array of one: a token is for one endpoint."""


def authorization_details(endpoint_id: str) -> str:
    """What a client asks for to query the endpoint: the text that GET of an endpoint shows."""
    detail = AuthorizationDetail(
        type="workspace_permission",
        object_type="serving-endpoints",
        object_path=f"/serving-endpoints/{endpoint_id}",
        actions=("query_inference_endpoint",),
    )
    return AUTHORIZATION_DETAILS.dump_json((detail,)).decode()
