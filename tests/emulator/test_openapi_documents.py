"""The OpenAPI documents of an endpoint and of the emulator validate and leave nothing out."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate
from tests.observed import ENTITY, B, refusal

from servemu.app import ROUTES

Json = dict[str, Any]
Create = Callable[..., Json]
Advance = Callable[[float], None]


@pytest.mark.parametrize(
    ("name", "answered"),
    [
        ("llama", "ChatAnswer"),
        ("databricks-gpt-oss-20b", "ChatAnswer"),
        ("databricks-gte-large-en", "EmbeddingsAnswer"),
    ],
)
def test_openapi_of_an_endpoint_validates_and_describes_its_task(
    workspace: httpx.Client,
    create: Create,
    advance: Advance,
    *,
    name: str,
    answered: str,
) -> None:
    create()
    advance(60)
    document = workspace.get(f"{B}/{name}/openapi").json()
    validate(document)
    assert document["info"] == {"title": name, "version": "1"}
    assert document["servers"] == [{"url": f"{workspace.base_url}/serving-endpoints/{name}"}]
    entity = ENTITY if name == "llama" else name
    assert list(document["paths"]) == ["/invocations", f"/served-models/{entity}/invocations"]
    answer = document["paths"]["/invocations"]["post"]["responses"]["200"]["content"]
    schema = {"$ref": f"#/components/schemas/{answered}"}
    assert answer["application/json"] == {"schema": schema}


def test_openapi_of_an_endpoint_that_never_served_is_not_found(
    workspace: httpx.Client, create: Create
) -> None:
    create()
    assert refusal(workspace.get(f"{B}/llama/openapi")) == (
        404,
        "RESOURCE_DOES_NOT_EXIST",
        "Endpoint 'llama' serves nothing yet.",
    )


def test_openapi_of_the_emulator_validates_and_has_every_route(workspace: httpx.Client) -> None:
    document = workspace.get("/_emulator/openapi.json").json()
    validate(document)
    shown = {(path, method.upper()) for path, ops in document["paths"].items() for method in ops}
    served = {
        (r.path.replace(":path}", "}"), method)
        for r in ROUTES
        for method in (r.methods or set()) - {"HEAD"}
    }
    assert shown == served
