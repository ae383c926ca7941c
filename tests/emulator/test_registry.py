"""Registered models over both wires, as MLflow's client and databricks-sdk ask for them."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import NotFound, PermissionDenied, ResourceAlreadyExists

from servemu.clock import PausedClock
from servemu.settings import Settings
from servemu.testing import Emulator, serve

Json = dict[str, Any]
MLFLOW = "/api/2.0/mlflow/unity-catalog"
FILES = "/api/2.0/fs/files/Models/c/s/m"
FAILS = Callable[[httpx.Response, int, str, str], None]


@pytest.fixture
def ask(workspace: httpx.Client) -> Callable[..., httpx.Response]:
    """MLflow's way: GET has a query, everything else a JSON body."""

    def ask(method: str, path: str, **given: object) -> httpx.Response:
        kind = "params" if method == "GET" else "json"
        return workspace.request(method, MLFLOW + path, **{kind: given})  # type: ignore[arg-type]

    return ask


@pytest.fixture
def model(ask: Callable[..., httpx.Response]) -> str:
    assert ask("POST", "/registered-models/create", name="c.s.m").status_code == 200
    return "c.s.m"


@pytest.fixture
def version(model: str, workspace: httpx.Client, ask: Callable[..., httpx.Response]) -> Json:
    """Version 1, READY."""
    ask("POST", "/model-versions/create", name=model, source="/x", run_id="r")
    assert workspace.put(f"{FILES}/1/MLmodel", content=b"{}").status_code == 204
    answer = ask("POST", "/model-versions/finalize", name=model, version="1")
    body: Json = answer.json()["model_version"]
    return body


def test_model_is_created_shown_and_created_once(
    ask: Callable[..., httpx.Response], assert_fails: FAILS
) -> None:
    given: Json = {"name": "c.s.m", "description": "d", "tags": [{"key": "a", "value": "b"}]}
    made = ask("POST", "/registered-models/create", **given).json()["registered_model"]
    times = made.pop("creation_timestamp"), made.pop("last_updated_timestamp")
    assert times[0] == times[1]
    assert made == {**given, "user_id": "me@example.com", "aliases": []}
    found = ask("GET", "/registered-models/get", name="c.s.m").json()["registered_model"]
    assert found["name"] == "c.s.m"
    again = ask("POST", "/registered-models/create", **given)
    message = "Routine or Model 'c.s.m' already exists."
    assert_fails(again, 400, "RESOURCE_ALREADY_EXISTS", message)


def test_version_waits_for_its_files_then_is_ready_and_read_only(
    ask: Callable[..., httpx.Response], model: str, workspace: httpx.Client
) -> None:
    made = ask("POST", "/model-versions/create", name=model, source="/x", model_id="m-1")
    assert made.json()["model_version"]["status"] == "PENDING_REGISTRATION"
    assert made.json()["model_version"]["model_id"] == "m-1"
    early = ask("POST", "/model-versions/finalize", name=model, version="1")
    assert (early.status_code, early.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert workspace.put(f"{FILES}/1/MLmodel", content=b"{}").status_code == 204
    ready = ask("POST", "/model-versions/finalize", name=model, version="1")
    assert ready.json()["model_version"]["status"] == "READY"
    late = workspace.put(f"{FILES}/1/MLmodel", content=b"other")
    assert (late.status_code, late.json()["error_code"]) == (403, "PERMISSION_DENIED")
    assert workspace.get(f"{FILES}/1/MLmodel").content == b"{}"


def test_deleted_version_number_does_not_come_again(
    ask: Callable[..., httpx.Response], version: Json, workspace: httpx.Client
) -> None:
    assert ask("DELETE", "/model-versions/delete", name="c.s.m", version="1").status_code == 200
    assert workspace.get(f"{FILES}/1/MLmodel").status_code == 404
    made = ask("POST", "/model-versions/create", name="c.s.m", source="/x")
    assert made.json()["model_version"]["version"] == "2"


def test_alias_moves_to_the_version_it_is_set_to_and_goes_with_it(
    ask: Callable[..., httpx.Response], version: Json, assert_fails: FAILS
) -> None:
    ask("POST", "/model-versions/create", name="c.s.m", source="/x")
    for number in ("1", "2"):
        ask("POST", "/registered-models/alias", name="c.s.m", alias="champion", version=number)
    found = ask("GET", "/registered-models/alias", name="c.s.m", alias="champion").json()
    assert found["model_version"]["version"] == "2"
    assert found["model_version"]["aliases"] == [{"alias": "champion", "version": "2"}]
    ask("DELETE", "/model-versions/delete", name="c.s.m", version="2")
    gone = ask("GET", "/registered-models/alias", name="c.s.m", alias="champion")
    message = "Alias 'champion' does not exist on Routine or Model 'c.s.m'."
    assert_fails(gone, 404, "RESOURCE_DOES_NOT_EXIST", message)


def test_tags_descriptions_and_a_new_name(
    ask: Callable[..., httpx.Response], version: Json, workspace: httpx.Client
) -> None:
    ask("POST", "/registered-models/set-tag", name="c.s.m", key="team", value="nlp")
    ask("POST", "/model-versions/set-tag", name="c.s.m", version="1", key="k", value="v")
    ask("PATCH", "/model-versions/update", name="c.s.m", version="1", description="first")
    ask("PATCH", "/registered-models/update", name="c.s.m", description="about")
    renamed = ask("PATCH", "/registered-models/update", name="c.s.m", new_name="c.s.n").json()
    assert renamed["registered_model"]["name"] == "c.s.n"
    assert renamed["registered_model"]["tags"] == [{"key": "team", "value": "nlp"}]
    assert renamed["registered_model"]["description"] == "about"
    found = ask("GET", "/model-versions/get", name="c.s.n", version="1").json()["model_version"]
    assert (found["description"], found["tags"]) == ("first", [{"key": "k", "value": "v"}])
    assert workspace.get(f"{FILES.replace('/m', '/n')}/1/MLmodel").content == b"{}"
    ask("DELETE", "/registered-models/delete-tag", name="c.s.n", key="team")
    assert ask("GET", "/registered-models/get", name="c.s.m").status_code == 404


def test_search_goes_page_by_page_and_knows_one_filter(
    ask: Callable[..., httpx.Response], assert_fails: FAILS
) -> None:
    for name in ("c.s.b", "c.s.a", "c.s.c"):
        ask("POST", "/registered-models/create", name=name)
    first = ask("GET", "/registered-models/search", max_results=2).json()
    assert [one["name"] for one in first["registered_models"]] == ["c.s.a", "c.s.b"]
    token = first["next_page_token"]
    second = ask("GET", "/registered-models/search", max_results=2, page_token=token).json()
    assert [one["name"] for one in second["registered_models"]] == ["c.s.c"]
    assert "next_page_token" not in second
    versions = ask("GET", "/model-versions/search", filter="name='c.s.a'").json()
    assert versions == {"model_versions": []}
    assert ask("GET", "/model-versions/search", filter="run_id='x'").status_code == 400
    bad = ask("GET", "/registered-models/search", page_token="%%%")
    assert_fails(bad, 400, "INVALID_PARAMETER_VALUE", "Invalid page token: '%%%'")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("m", "specify all three levels"),
        ("s.m", "specify all three levels"),
        ("a.b.c.d", "specify all three levels"),
        ("c..m", "specify all three levels"),
        ("c.s.a/b", "is not a valid name"),
        ("c.s.a b", "is not a valid name"),
        ("c.s.a\x00", "is not a valid name"),
        ("c.s." + "x" * 256, "is not a valid name"),
    ],
)
def test_bad_names_are_refused(ask: Callable[..., httpx.Response], name: str, says: str) -> None:
    answer = ask("POST", "/registered-models/create", name=name)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert says in answer.json()["message"]


def test_unknown_catalogs_are_refused_where_the_setting_names_the_known_ones(
    connect: Callable[[str], httpx.Client], assert_fails: FAILS
) -> None:
    settings = Settings(engine="synthetic", catalogs=("main", "ml.nlp"))
    with serve(settings, PausedClock()) as emulator, connect(emulator.url) as client:
        create = MLFLOW + "/registered-models/create"
        for name in ("main.any.m", "ml.nlp.m"):
            assert client.post(create, json={"name": name}).status_code == 200
        answer = client.post(create, json={"name": "other.s.m"})
        assert_fails(answer, 404, "RESOURCE_DOES_NOT_EXIST", "Catalog 'other' does not exist.")
        answer = client.post(create, json={"name": "ml.cv.m"})
        assert_fails(answer, 404, "RESOURCE_DOES_NOT_EXIST", "Schema 'ml.cv' does not exist.")


def test_only_the_owner_and_admins_change_a_model(emulator: Emulator, connect: Any) -> None:
    token = "emu.registry-owners"
    create = {"name": "c.s.m"}
    with (
        connect(emulator.url, f"{token}.ann") as ann,
        connect(emulator.url, f"{token}.bob") as bob,
        connect(emulator.url, token) as admin,
    ):
        assert ann.post(MLFLOW + "/registered-models/create", json=create).status_code == 200
        assert bob.get(MLFLOW + "/registered-models/get", params=create).status_code == 200
        refused = bob.request("DELETE", MLFLOW + "/registered-models/delete", json=create)
        assert (refused.status_code, refused.json()["error_code"]) == (403, "PERMISSION_DENIED")
        update = {**create, "description": "by the admin"}
        assert admin.patch(MLFLOW + "/registered-models/update", json=update).status_code == 200


@pytest.fixture
def sdk(emulator: Emulator, workspace: httpx.Client) -> Iterator[WorkspaceClient]:
    token = workspace.headers["authorization"].partition(" ")[2]
    yield WorkspaceClient(host=emulator.url, token=token)


def test_databricks_sdk_sees_the_same_models(
    sdk: WorkspaceClient, ask: Callable[..., httpx.Response], version: Json
) -> None:
    found = sdk.registered_models.get("c.s.m")
    assert (found.full_name, found.name, found.catalog_name, found.schema_name) == (
        "c.s.m",
        "m",
        "c",
        "s",
    )
    sdk.registered_models.update("c.s.m", comment="by the sdk")
    assert ask("GET", "/registered-models/get", name="c.s.m").json()["registered_model"][
        "description"
    ] == ("by the sdk")
    sdk.registered_models.set_alias("c.s.m", "champion", 1)
    assert sdk.model_versions.get_by_alias("c.s.m", "champion").version == 1
    assert [one.version for one in sdk.model_versions.list("c.s.m")] == [1]
    assert sdk.model_versions.get("c.s.m", 1).status.value == "READY"  # type: ignore[union-attr]
    sdk.model_versions.update("c.s.m", 1, comment="first")
    assert sdk.model_versions.get("c.s.m", 1).comment == "first"
    sdk.registered_models.delete_alias("c.s.m", "champion")
    sdk.model_versions.delete("c.s.m", 1)
    sdk.registered_models.delete("c.s.m")
    with pytest.raises(NotFound, match=r"Routine or Model 'c\.s\.m' does not exist"):
        sdk.registered_models.get("c.s.m")


def test_databricks_sdk_lists_by_schema_with_system_ai_among_all(sdk: WorkspaceClient) -> None:
    sdk.registered_models.create(catalog_name="c", schema_name="s", name="m", comment="x")
    with pytest.raises(ResourceAlreadyExists):
        sdk.registered_models.create(catalog_name="c", schema_name="s", name="m")
    with pytest.raises(PermissionDenied):
        sdk.registered_models.create(catalog_name="system", schema_name="ai", name="mine")
    listed = sdk.registered_models.list(catalog_name="c", schema_name="s")
    assert [one.full_name for one in listed] == ["c.s.m"]
    names = {one.full_name for one in sdk.registered_models.list(max_results=7)}
    assert {"c.s.m", "system.ai.meta_llama_v3_1_8b_instruct"} <= names
    with pytest.raises(PermissionDenied):
        sdk.registered_models.delete("system.ai.meta_llama_v3_1_8b_instruct")
