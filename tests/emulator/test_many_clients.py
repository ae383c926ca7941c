"""Two hundred clients at once: nothing breaks, no change is lost, states follow the table."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from servemu.testing import Emulator

Json = dict[str, Any]
Entity = Callable[..., Json]

pytestmark = pytest.mark.anyio

B = "/api/2.0/serving-endpoints"
CLIENTS = 200
UP = 1.5
"""Seconds of the workspace's clock that a deployment takes."""

ROWS = {
    ("NOT_READY", "IN_PROGRESS", False, True),
    ("READY", "NOT_UPDATING", True, False),
    ("READY", "IN_PROGRESS", True, True),
}
"""ready, config_update, is there a `config`, a `pending_config` (facts/control_plane §3)."""


@dataclass
class Seen:
    """What all clients saw."""

    statuses: list[tuple[str, int]] = field(default_factory=list)
    updates: int = 0
    """Updates of the shared endpoint that were accepted."""


class Client:
    """One of them, with an endpoint of its own and the one that all share."""

    def __init__(self, http: httpx.AsyncClient, number: int, config: Json, seen: Seen) -> None:
        self._http = http
        self._number = number
        self._own = f"own-{number}"
        self._config = config
        self._seen = seen
        self._versions: dict[str, tuple[int, int]] = {}

    async def run(self) -> None:
        body = {"name": self._own, "config": self._config}
        assert await self._status("POST", B, body) == 200
        tag = {"add_tags": [{"key": f"t{self._number}", "value": "1"}]}
        assert await self._status("PATCH", f"{B}/shared/tags", tag) == 200
        await self._look("shared")
        if self._number % 10 == 0:
            await self._status("POST", "/_emulator/clock/advance", {"seconds": UP})
        await self._update("shared")
        await self._update(self._own)
        await self._look(self._own)
        await self._look("shared")
        if self._number % 2 == 0:
            assert await self._status("DELETE", f"{B}/{self._own}") == 200

    async def _update(self, name: str) -> None:
        status = await self._status("PUT", f"{B}/{name}/config", self._config)
        assert status in (200, 409)
        if (name, status) == ("shared", 200):
            self._seen.updates += 1

    async def _look(self, name: str) -> None:
        """The endpoint stands in a row of the table, and went forward since last time."""
        endpoint = (await self._http.get(f"{B}/{name}")).json()
        state = endpoint["state"]
        row = (state["ready"], state["config_update"])
        assert (*row, "config" in endpoint, "pending_config" in endpoint) in ROWS
        active = endpoint.get("config", {}).get("config_version", 0)
        latest = endpoint.get("pending_config", {}).get("config_version", active)
        assert latest - active in (0, 1)
        before = self._versions.get(name, (0, 0))
        assert active >= before[0] and latest >= before[1]
        self._versions[name] = (active, latest)

    async def _status(self, method: str, path: str, body: Json | None = None) -> int:
        status = (await self._http.request(method, path, json=body)).status_code
        self._seen.statuses.append((method, status))
        return status


@asynccontextmanager
async def connect(emulator: Emulator, token: str) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Each with a connection of its own, all in one workspace."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                httpx.AsyncClient(
                    base_url=emulator.url,
                    headers={"Authorization": f"Bearer {token}"},
                    timeout=60,
                    trust_env=False,
                    verify=False,
                )
            )
            for _ in range(CLIENTS)
        ]


async def test_two_hundred_clients_lose_nothing_and_see_only_rows_of_the_table(
    emulator: Emulator, entity: Entity
) -> None:
    config = {"served_entities": [entity()]}
    seen = Seen()
    async with connect(emulator, "emu.many-clients") as https:
        http = https[0]
        await http.post(B, json={"name": "shared", "config": config})
        await http.post("/_emulator/clock/advance", json={"seconds": UP})
        clients = [Client(own, number, config, seen) for number, own in enumerate(https)]
        await asyncio.gather(*(client.run() for client in clients))
        await http.post("/_emulator/clock/advance", json={"seconds": 60})
        shared = (await http.get(f"{B}/shared")).json()
        listed = (await http.get(B)).json()["endpoints"]
    assert not [status for status in seen.statuses if status[1] >= 500]
    assert {tag["key"] for tag in shared["tags"]} == {f"t{n}" for n in range(CLIENTS)}
    assert seen.updates > 0
    assert shared["config"]["config_version"] == 1 + seen.updates
    left = {f"own-{number}" for number in range(1, CLIENTS, 2)} | {"shared"}
    assert {endpoint["name"] for endpoint in listed if "id" in endpoint} == left
    assert {endpoint["state"]["ready"] for endpoint in listed} == {"READY"}


async def test_one_name_wanted_by_two_hundred_is_given_to_one(
    emulator: Emulator, entity: Entity
) -> None:
    body = {"name": "wanted", "config": {"served_entities": [entity()]}}
    async with connect(emulator, "emu.one-name") as https:
        answers = await asyncio.gather(*(http.post(B, json=body) for http in https))
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses == [200] + [409] * (CLIENTS - 1)
        [created] = [answer.json() for answer in answers if answer.status_code == 200]
        assert (await https[0].get(f"{B}/wanted")).json() == created
