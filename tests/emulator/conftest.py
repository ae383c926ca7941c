"""Fixtures of the emulator's tests over its API."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

Json = dict[str, Any]


@pytest.fixture
def add_fault(workspace: httpx.Client) -> Callable[..., Json]:
    """Adds a rule; answers it as it was stored."""

    def add_fault(**rule: object) -> Json:
        answer = workspace.post("/_emulator/faults", json=rule)
        assert answer.status_code == 200, answer.text
        body: Json = answer.json()
        return body

    return add_fault
