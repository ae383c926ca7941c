"""The Files API: whole or not at all, inside of its folder, by signed URLs too."""

import errno
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from databricks.sdk import WorkspaceClient

from servemu.clock import PausedClock
from servemu.settings import Settings
from servemu.testing import Emulator, serve

Json = dict[str, Any]
MLFLOW = "/api/2.0/mlflow/unity-catalog"
ROOT = "/Models/c/s/m/1"
FILES = "/api/2.0/fs/files"
MIB = 1 << 20


class MovedClock(PausedClock):
    """A clock of the machine that the test moves."""

    def set(self, now: float) -> None:
        self._now = now


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def on_disk(store: Path) -> Iterator[tuple[Emulator, MovedClock]]:
    """An emulator whose files lie where the test can look."""
    clock = MovedClock()
    with serve(Settings(engine="synthetic", artifacts=store), clock) as emulator:
        yield emulator, clock


@pytest.fixture
def client(
    on_disk: tuple[Emulator, MovedClock], connect: Callable[[str], httpx.Client]
) -> Iterator[httpx.Client]:
    """With a model `c.s.m` whose version 1 waits for files."""
    with connect(on_disk[0].url) as client:
        client.post(MLFLOW + "/registered-models/create", json={"name": "c.s.m"})
        client.post(MLFLOW + "/model-versions/create", json={"name": "c.s.m", "source": "/x"})
        yield client


def signed(client: httpx.Client, kind: str, path: str = f"{ROOT}/x", **more: object) -> str:
    answer = client.post(f"/api/2.0/fs/create-{kind}-url", json={"path": path, **more})
    assert answer.status_code == 200, answer.text
    url: str = answer.json()["url"]
    return url


def test_file_is_written_listed_read_in_parts_and_deleted(client: httpx.Client) -> None:
    assert client.put(f"{FILES}{ROOT}/a/x.bin", content=b"0123456789").status_code == 204
    listed = client.get(f"/api/2.0/fs/directories{ROOT}/").json()["contents"]
    assert [(one["name"], one["is_directory"]) for one in listed] == [("a", True)]
    inside = client.get(f"/api/2.0/fs/directories{ROOT}/a").json()["contents"][0]
    assert (inside["path"], inside["file_size"]) == (f"{ROOT}/a/x.bin", 10)
    part = client.get(f"{FILES}{ROOT}/a/x.bin", headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, b"234")
    assert client.head(f"/api/2.0/fs/directories{ROOT}/a").status_code == 200
    of_file = client.get(f"/api/2.0/fs/directories{ROOT}/a/x.bin")
    assert (of_file.status_code, of_file.json()["error_code"]) == (404, "NOT_FOUND")
    assert client.delete(f"{FILES}{ROOT}/a/x.bin").status_code == 204
    assert client.get(f"{FILES}{ROOT}/a/x.bin").status_code == 404


def test_listing_goes_page_by_page(client: httpx.Client) -> None:
    for name in ("a", "b", "c"):
        client.put(f"{FILES}{ROOT}/{name}", content=b"")
    first = client.get(f"/api/2.0/fs/directories{ROOT}", params={"page_size": 2}).json()
    token = {"page_size": 2, "page_token": first["next_page_token"]}
    second = client.get(f"/api/2.0/fs/directories{ROOT}", params=token).json()
    names = [one["name"] for page in (first, second) for one in page["contents"]]
    assert (names, "next_page_token" in second) == (["a", "b", "c"], False)


@pytest.mark.parametrize(
    "path",
    [
        f"{ROOT}/%2e%2e/%2e%2e/x",
        f"{ROOT}/a%2f..%2f..%2fx",
        f"{ROOT}/a%00b",
        f"{ROOT}/a//b",
        f"{ROOT}/..%5cx",
        f"{ROOT}/{'x' * 256}",
        f"{ROOT}/{'x/' * 600}x",
    ],
)
def test_path_tricks_are_refused_and_write_nothing(
    client: httpx.Client, store: Path, path: str
) -> None:
    before = sorted(store.rglob("*"))
    answer = client.put(FILES + path, content=b"evil")
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert sorted(store.rglob("*")) == before


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/Volumes/c/s/v/x", 404),
        ("/Models/c/s/other/1/x", 404),
        ("/Models/c/s/m/2/x", 404),
        ("/Models/c/s/m/one/x", 404),
        ("/Models/system/ai/meta_llama_v3_1_8b_instruct/2/x", 403),
    ],
)
def test_other_places_are_not_written(client: httpx.Client, path: str, status: int) -> None:
    assert client.put(FILES + path, content=b"x").status_code == status


def test_file_where_a_folder_is_needed_is_refused(client: httpx.Client) -> None:
    assert client.put(f"{FILES}{ROOT}/clash", content=b"x").status_code == 204
    assert client.put(f"{FILES}{ROOT}/clash/y", content=b"x").status_code == 400


def test_signed_urls_need_no_token_and_do_what_they_say_only(client: httpx.Client) -> None:
    put = signed(client, "upload")
    assert httpx.put(put, content=b"by url").status_code == 200
    get = signed(client, "download")
    assert httpx.get(get).content == b"by url"
    for method, url in (("GET", put), ("PUT", get)):
        refused = httpx.request(method, url)
        assert refused.status_code == 403
        assert "SignatureDoesNotMatch" in refused.text


def test_forged_and_expired_urls_are_refused_as_s3_does(
    client: httpx.Client, on_disk: tuple[Emulator, MovedClock]
) -> None:
    url = signed(client, "upload")
    before, _, body = url.rpartition("/")
    refused = httpx.put(f"{before}/{body[:-2]}AA", content=b"evil")
    assert (refused.status_code, refused.headers["content-type"]) == (403, "application/xml")
    assert "SignatureDoesNotMatch" in refused.text
    assert httpx.put(f"{before[:-3]}AAA/{body}", content=b"evil").status_code == 403
    on_disk[1].set(on_disk[1].now() + 901)
    late = httpx.put(url, content=b"late")
    assert late.status_code == 403
    assert "<Message>Request has expired</Message>" in late.text


def test_download_url_takes_its_path_from_the_query_too(client: httpx.Client) -> None:
    client.put(f"{FILES}{ROOT}/x", content=b"x")
    query = {"path": f"{ROOT}/x", "expire_time": "2030-01-01T00:00:00Z"}
    answer = client.post("/api/2.0/fs/create-download-url", params=query)
    assert httpx.get(answer.json()["url"]).content == b"x"
    missing = client.post("/api/2.0/fs/create-download-url", params={"path": f"{ROOT}/none"})
    assert (missing.status_code, missing.json()["error_code"]) == (404, "NOT_FOUND")


def test_two_hundred_mib_in_parts_by_two_at_once(
    on_disk: tuple[Emulator, MovedClock], client: httpx.Client
) -> None:
    """databricks-sdk's own multipart upload, from 50 MiB on."""
    token = client.headers["authorization"].partition(" ")[2]
    sdk = WorkspaceClient(host=on_disk[0].url, token=token)
    shards = {f"{ROOT}/model/{n}.safetensors": bytes([n]) * (100 * MIB + n) for n in (1, 2)}
    uploads = [
        threading.Thread(target=sdk.files.upload, args=(path, io.BytesIO(shard)))
        for path, shard in shards.items()
    ]
    for upload in uploads:
        upload.start()
    for upload in uploads:
        upload.join()
    for path, shard in shards.items():
        found = client.get(FILES + path)
        assert found.content == shard


def begin(client: httpx.Client) -> str:
    query = {"action": "initiate-upload", "overwrite": "true"}
    answer = client.post(f"{FILES}{ROOT}/big", params=query)
    token: str = answer.json()["multipart_upload"]["session_token"]
    return token


def part(client: httpx.Client, token: str, number: int, content: bytes) -> str:
    asked = {"path": f"{ROOT}/big", "session_token": token, "start_part_number": number}
    urls = client.post("/api/2.0/fs/create-upload-part-urls", json=asked).json()
    etag: str = httpx.put(urls["upload_part_urls"][0]["url"], content=content).headers["etag"]
    return etag


def complete(client: httpx.Client, token: str, *parts: tuple[int, str]) -> httpx.Response:
    query = {"action": "complete-upload", "upload_type": "multipart", "session_token": token}
    body = {"parts": [{"part_number": number, "etag": etag} for number, etag in parts]}
    return client.post(f"{FILES}{ROOT}/big", params=query, json=body)


def test_open_upload_holds_up_the_version_and_an_aborted_one_leaves_nothing(
    client: httpx.Client, store: Path
) -> None:
    client.put(f"{FILES}{ROOT}/MLmodel", content=b"{}")
    token = begin(client)
    part(client, token, 1, b"half")
    named = {"name": "c.s.m", "version": "1"}
    early = client.post(MLFLOW + "/model-versions/finalize", json=named)
    assert (early.status_code, early.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    asked = {"path": f"{ROOT}/big", "session_token": token}
    answer = client.post("/api/2.0/fs/create-abort-upload-url", json=asked).json()
    assert httpx.delete(answer["abort_upload_url"]["url"]).status_code == 204
    assert list((store / ".incoming").iterdir()) == []
    assert client.get(f"{FILES}{ROOT}/big").status_code == 404
    assert client.post(MLFLOW + "/model-versions/finalize", json=named).status_code == 200


def test_parts_come_together_in_order_and_a_wrong_etag_is_refused(client: httpx.Client) -> None:
    token = begin(client)
    second, first = part(client, token, 2, b"world"), part(client, token, 1, b"hello ")
    assert complete(client, token, (1, second), (2, first)).status_code == 400
    assert complete(client, token, (1, first)).status_code == 400
    assert complete(client, token, (2, second), (1, first)).status_code == 200
    assert client.get(f"{FILES}{ROOT}/big").content == b"hello world"
    assert complete(client, token, (1, first), (2, second)).status_code == 404


def test_upload_that_breaks_off_leaves_nothing(client: httpx.Client, store: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * MIB
        raise ConnectionError

    with pytest.raises(ConnectionError):
        client.put(f"{FILES}{ROOT}/broken", content=broken())
    assert client.put(f"{FILES}{ROOT}/after", content=b"x").status_code == 204
    assert client.get(f"{FILES}{ROOT}/broken").status_code == 404


def test_full_disk_is_said_and_leaves_nothing(
    client: httpx.Client, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("servemu.registry.files.os.replace", full)
    answer = client.put(f"{FILES}{ROOT}/x9", content=b"x")
    assert (answer.status_code, answer.json()["error_code"]) == (507, "RESOURCE_EXHAUSTED")
    assert "No space left on device" in answer.json()["message"]
    assert list((store / ".incoming").glob("*.part")) == []
