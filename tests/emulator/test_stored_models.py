"""The model store over HTTP and from the shell: pulled, shown, in use, removed."""

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from servemu.catalog import CatalogModel, load_catalog
from servemu.cli.commands import app
from servemu.cli.models import stand_ins
from servemu.clock import PausedClock
from servemu.residents import Bounds, Residents
from servemu.settings import Settings
from servemu.testing import Emulator, serve
from servemu_engine.base import EngineInfo
from servemu_engine.errors import LoadFailed
from servemu_engine.synthetic import SyntheticEngine
from servemu_engine.weight_sources import SOURCES

Json = dict[str, Any]
MODELS = "/_emulator/models"
CHAT = "databricks-meta-llama-3-3-70b-instruct"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator with a store of its own, where `mine` plays Llama 70B, `small` 8B."""
    family = {"families": {"llama-70b": {"stand_in": "mine"}, "llama-8b": {"stand_in": "small"}}}
    store = tmp_path_factory.mktemp("store")
    settings = Settings(engine="synthetic", model_store=store, catalog=family)
    with serve(settings, PausedClock()) as running:
        yield running


@pytest.fixture
def client(own: Emulator, connect: Callable[[str], httpx.Client]) -> Iterator[httpx.Client]:
    with connect(own.url) as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, as far as the store looks at it: one tensor of two numbers."""
    folder = tmp_path / "mine"
    folder.mkdir()
    tensor = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    header = json.dumps(tensor).encode()
    weights = struct.pack("<Q", len(header)) + header + bytes(8)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def test_pulled_folder_is_shown_and_removed_once(client: httpx.Client, folder: Path) -> None:
    pulled = client.post(MODELS, json={"source": str(folder), "name": "team/small"})
    size = sum(path.stat().st_size for path in folder.iterdir())
    path = client.get(f"{MODELS}/team/small").json()["path"]
    assert (pulled.status_code, pulled.json()) == (
        200,
        {
            "name": "team/small",
            "resident": False,
            "path": path,
            "source": f"folder:{folder}",
            "task": "embedding",
            "dtype": "float32",
            "size": size,
        },
    )
    assert client.get(MODELS).json()["models"].count(pulled.json()) == 1
    assert client.delete(f"{MODELS}/team/small").json() == {}
    assert not Path(path).exists()
    for gone in (client.get(f"{MODELS}/team/small"), client.delete(f"{MODELS}/team/small")):
        message = "Model 'team/small' is not in the store."
        assert (gone.status_code, gone.json()["message"]) == (404, message)
        assert gone.json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"


def test_model_in_memory_is_not_removed(client: httpx.Client, folder: Path) -> None:
    client.post(MODELS, json={"source": str(folder)})
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    asked = client.post(f"/serving-endpoints/{CHAT}/invocations", json=body)
    assert asked.status_code == 200
    shown = client.get(f"{MODELS}/mine").json()
    assert (shown["resident"], shown["engine"]) == (True, "synthetic")
    assert {"precision", "runner", "memory", "device"} <= shown.keys()
    refused = client.delete(f"{MODELS}/mine")
    assert (refused.status_code, refused.json()["error_code"], refused.json()["message"]) == (
        409,
        "RESOURCE_CONFLICT",
        "Model 'mine' is in memory or being loaded, and cannot be removed.",
    )
    assert Path(shown["path"]).exists()


def test_model_that_an_endpoint_will_want_again_is_not_removed(
    client: httpx.Client, folder: Path, entity: Callable[..., Json]
) -> None:
    client.post(MODELS, json={"source": str(folder), "name": "small"})
    body = {"name": "chat", "config": {"served_entities": [entity()]}}
    created = client.post("/api/2.0/serving-endpoints", json=body)
    assert created.status_code == 200, created.text
    refused = client.delete(f"{MODELS}/small")
    assert (refused.status_code, refused.json()["error_code"]) == (409, "RESOURCE_CONFLICT")
    assert refused.json()["message"].startswith(
        "Model 'small' plays the model of endpoint 'chat' of workspace '"
    )
    client.delete("/api/2.0/serving-endpoints/chat")
    assert client.delete(f"{MODELS}/small").status_code == 200


@pytest.mark.parametrize("columns", [40, 80, 400])
def test_list_cuts_and_breaks_nothing_however_narrow_the_terminal(
    client: httpx.Client, own: Emulator, folder: Path, columns: int
) -> None:
    client.post(MODELS, json={"source": str(folder), "name": f"list-{columns}"})
    env = {"COLUMNS": str(columns)}
    shown = CliRunner().invoke(app, ["models", "list", "--url", own.url], env=env).stdout
    lines = shown.splitlines()
    others = [line for line in lines if "folder:" not in line]
    assert f"folder:{folder}" in shown
    assert max(map(len, others)) <= columns
    assert (f"list-{columns}" in lines) is (columns < 400)


@pytest.mark.parametrize("name", ["..%2f..%2fetc", "%2e%2e", ".downloads", "a/b/c", "%2Fetc"])
def test_name_that_is_a_path_is_no_name(client: httpx.Client, name: str) -> None:
    refused = client.delete(f"{MODELS}/{name}")
    assert (refused.status_code, refused.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert "is not allowed: letters, digits" in refused.json()["message"]


def pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def own_code(folder: Path) -> None:
    config = {"model_type": "own", "auto_map": {"AutoConfig": "code.OwnConfig"}}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (pickle_only, "model 'mine': pytorch_model.bin is not safetensors"),
        (own_code, "model 'mine' brings code of its own (code.OwnConfig) for"),
        (lambda folder: (folder / "config.json").unlink(), "model 'mine': "),
    ],
    ids=["pickle", "code", "config"],
)
def test_model_that_is_not_to_be_trusted_is_refused_with_the_reason(
    client: httpx.Client, folder: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(folder)
    refused = client.post(MODELS, json={"source": str(folder), "name": "spoilt"})
    assert (refused.status_code, refused.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert refused.json()["message"].startswith(message)
    assert client.get(f"{MODELS}/spoilt").status_code == 404


def test_taken_name_is_409(client: httpx.Client, folder: Path, tmp_path: Path) -> None:
    client.post(MODELS, json={"source": str(folder), "name": "taken"})
    other = folder.rename(tmp_path / "other")
    refused = client.post(MODELS, json={"source": str(other), "name": "taken"})
    assert (refused.status_code, refused.json()["error_code"]) == (409, "RESOURCE_ALREADY_EXISTS")
    assert refused.json()["message"].startswith(f"model name 'taken' is taken by folder:{folder}")


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    """Runs `servemu models …` on a store in a folder."""

    def run(*arguments: object) -> Result:
        given = ["models", *map(str, arguments), "--model-store", str(tmp_path / "store")]
        return CliRunner().invoke(app, given, env={"COLUMNS": "200"})

    return run


def test_shell_pulls_lists_and_removes_without_an_emulator(
    run: Callable[..., Result], folder: Path
) -> None:
    pulled = run("pull", folder, "--name", "x")
    assert (pulled.exit_code, pulled.stdout) == (0, "x float32 0 MB\n")
    assert pulled.stderr == ""  # over in no time
    [listed] = json.loads(run("list", "--json").stdout)["models"]
    assert (listed["name"], listed["source"], listed["dtype"]) == (
        "x",
        f"folder:{folder}",
        "float32",
    )
    assert [run("remove", "x").exit_code for _ in range(2)] == [0, 1]
    assert json.loads(run("list", "--json").stdout) == {"models": []}


def test_shell_says_in_one_line_why_a_pull_is_refused(
    run: Callable[..., Result], folder: Path
) -> None:
    pickle_only(folder)
    for arguments, message in (
        ((folder,), "model 'mine': pytorch_model.bin is not safetensors"),
        (("nonsense",), "model 'nonsense' is neither in the store"),
    ):
        refused = run("pull", *arguments)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert f"servemu: {message}" in refused.stderr
    assert run("pull", folder, folder, "--name", "x").exit_code == 2


def test_shell_removes_through_a_running_emulator(own: Emulator, client: httpx.Client) -> None:
    refused = CliRunner().invoke(app, ["models", "remove", "a/b/c", "--url", own.url])
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "servemu: model name 'a/b/c' is not allowed" in refused.stderr


def test_catalogue_is_played_by_models_that_can_be_fetched() -> None:
    assert stand_ins(load_catalog({})) == sorted(SOURCES)


class Sized(SyntheticEngine):
    """An engine whose weights take 100 bytes, which are guessed right before the start."""

    @property
    def info(self) -> EngineInfo:
        return replace(super().info, num_bytes=100)


class Stopwatch(PausedClock):
    """Its seconds are set."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def models() -> list[CatalogModel]:
    """Three models with a stand-in each."""
    model = next(iter(load_catalog({}).models.values()))
    return [replace(model, family=replace(model.family, stand_in=name)) for name in ("a", "b", "c")]


def test_bytes_in_memory_are_bounded_and_idle_models_go_first(models: list[CatalogModel]) -> None:
    clock = Stopwatch()
    residents = Residents(lambda m: Sized(m.family.stand_in), clock, Bounds(9, 250, 60))
    a, b, c = models
    residents.load(a)
    residents.load(b)
    with pytest.raises(
        LoadFailed, match=r"^model 'c' takes 100 bytes, and .* hold 200 of .* = 250"
    ):
        residents.load(c)
    assert [one["name"] for one in residents.describe()] == ["a", "b"]
    clock.seconds = 61
    residents.find(b)
    residents.load(c)
    assert [one["name"] for one in residents.describe()] == ["b", "c"]
    residents.close()
