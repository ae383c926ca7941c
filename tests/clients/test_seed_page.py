"""The seed page's REST script against a live emulator, and the question behind it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from databricks.sdk import WorkspaceClient
from openai import OpenAI

from servemu.testing import Emulator

ENDPOINT = "prov-throughput-endpoint"
QUESTION = {"role": "user", "content": "What is the capital of France?"}


@pytest.fixture
def created(real: Emulator, token: str) -> dict[str, Any]:
    """What the script prints, run as a person would: in its own interpreter."""
    script = (Path(__file__).parent / "seed_page_script.py").read_text()
    script = script.replace("<YOUR-API-URL>", real.url).replace("<YOUR-API-TOKEN>", token)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_script_creates_an_endpoint_that_provisions(created: dict[str, Any]) -> None:
    assert created["state"] == {
        "ready": "NOT_READY",
        "config_update": "IN_PROGRESS",
        "suspend": "NOT_SUSPENDED",
    }
    (entity,) = created["pending_config"]["served_entities"]
    assert "config" not in created
    assert entity["min_provisioned_throughput"] == 2 * 1580
    assert entity["max_provisioned_throughput"] == 3 * 1580


def test_the_endpoint_of_the_script_names_paris(
    created: dict[str, Any], databricks: WorkspaceClient, openai: OpenAI
) -> None:
    databricks.serving_endpoints.wait_get_serving_endpoint_not_updating(created["name"])
    answer = openai.chat.completions.create(
        model=ENDPOINT,
        messages=[{"role": "user", "content": QUESTION["content"]}],
        temperature=0,
        max_tokens=32,
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
