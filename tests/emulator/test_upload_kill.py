"""kill -9 in the middle of an upload: nothing half is left, and the upload can be done again."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

Connect = Callable[..., httpx.Client]
Running = tuple[httpx.Client, subprocess.Popen[str]]

MLFLOW = "/api/2.0/mlflow/unity-catalog"
FILE = "/api/2.0/fs/files/Models/c/s/m/1"
NAMED = {"name": "c.s.m", "version": "1"}
MIB = 1 << 20


@contextmanager
def running(database: Path, connect: Connect) -> Iterator[Running]:
    command = [sys.executable, "-m", "servemu", "up", "--port", "0", "--engine", "synthetic"]
    with subprocess.Popen(
        [*command, "--database", str(database)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        with connect(url, "emu.kill") as client:
            yield client, process
        process.kill()


def test_upload_that_was_killed_leaves_nothing_and_is_done_again(
    tmp_path: Path, connect: Connect
) -> None:
    database = tmp_path / "a.db"
    artifacts = tmp_path / "a.db.artifacts"
    arrived = threading.Event()

    def half() -> Iterator[bytes]:
        yield b"x" * MIB
        arrived.wait()

    with running(database, connect) as (client, process):
        client.post(MLFLOW + "/registered-models/create", json={"name": "c.s.m"})
        client.post(MLFLOW + "/model-versions/create", json={"name": "c.s.m"})
        assert client.put(f"{FILE}/MLmodel", content=b"{}").status_code == 204

        def upload() -> None:
            try:
                client.put(f"{FILE}/model/model.safetensors", content=half())
            except httpx.HTTPError:
                return

        thread = threading.Thread(target=upload)
        thread.start()
        while not any((artifacts / ".incoming").glob("*.part")):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        arrived.set()
        thread.join()

    with running(database, connect) as (client, _):
        assert not (artifacts / ".incoming").exists()
        assert client.get(f"{FILE}/model/model.safetensors").status_code == 404
        assert client.get(f"{FILE}/MLmodel").content == b"{}"
        shown = client.get(MLFLOW + "/model-versions/get", params=NAMED).json()
        assert shown["model_version"]["status"] == "PENDING_REGISTRATION"
        content = b"y" * MIB
        assert client.put(f"{FILE}/model/model.safetensors", content=content).status_code == 204
        done = client.post(MLFLOW + "/model-versions/finalize", json=NAMED).json()
        assert done["model_version"]["status"] == "READY"
        assert client.get(f"{FILE}/model/model.safetensors").content == content
