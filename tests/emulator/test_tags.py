"""`PATCH …/{name}/tags`."""

from collections.abc import Callable
from typing import Any

import httpx

Json = dict[str, Any]
Create = Callable[..., Json]
Get = Callable[..., Json]

B = "/api/2.0/serving-endpoints"
UP = 1.5
"""Seconds of a workspace's clock after which an 8B is up."""


def test_tags_are_deleted_then_added_and_keep_their_order(
    workspace: httpx.Client, create: Create, get: Get
) -> None:
    create(tags=[{"key": key, "value": key} for key in "abc"])
    change = {"delete_tags": ["b", "none"], "add_tags": [{"key": "d"}, {"key": "a", "value": "2"}]}
    patched = workspace.patch(f"{B}/llama/tags", json=change)
    tags = [
        {"key": "a", "value": "2"},
        {"key": "c", "value": "c"},
        {"key": "d", "value": ""},
    ]
    assert (patched.status_code, patched.json()) == (200, {"tags": tags})
    assert get()["tags"] == tags


def test_empty_tag_patch_answers_the_tags(workspace: httpx.Client, create: Create) -> None:
    create(tags=[{"key": "a", "value": "1"}])
    assert workspace.patch(f"{B}/llama/tags").json() == {"tags": [{"key": "a", "value": "1"}]}


def test_tags_patched_during_a_deployment_stay(
    workspace: httpx.Client, create: Create, advance: Callable[[float], None], get: Get
) -> None:
    create()
    workspace.patch(f"{B}/llama/tags", json={"add_tags": [{"key": "a", "value": "1"}]})
    advance(UP)
    endpoint = get()
    assert endpoint["tags"] == [{"key": "a", "value": "1"}]
    assert endpoint["state"]["ready"] == "READY"
