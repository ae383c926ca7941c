"""What was acknowledged is there after kill -9."""

import signal
import subprocess
import sys
from pathlib import Path

from servemu_state import endpoints
from servemu_state.database import open_database

WRITER = """
import itertools, sys
from servemu_state import endpoints
from servemu_state.database import open_database
from servemu_state.records import ConfigUpdate, Endpoint

database = open_database(sys.argv[1])
for n in itertools.count():
    endpoint = Endpoint(
        f"{n:032x}", "default", f"llama-{n}", "me", n, n, ConfigUpdate.NOT_UPDATING
    )
    with database.write() as conn:
        endpoints.insert(conn, endpoint)
    print(endpoint.name, flush=True)
"""


def test_acknowledged_endpoints_survive_kill(tmp_path: Path) -> None:
    where = str(tmp_path / "a.db")
    command = [sys.executable, "-c", WRITER, where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        acknowledged = [writer.stdout.readline().strip() for _ in range(50)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += writer.stdout.read().split("\n")[:-1]
    assert writer.returncode == -signal.SIGKILL
    database = open_database(where)
    with database.read() as conn:
        stored = [endpoint.name for endpoint in endpoints.list_all(conn, "default")]
    database.close()
    assert stored[: len(acknowledged)] == acknowledged
    # At most the one that was committed but not printed yet.
    assert len(stored) - len(acknowledged) in (0, 1)
