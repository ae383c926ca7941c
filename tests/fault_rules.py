"""Where fault rules are set, and what the tests of their phases, sources and capacity ask."""

from typing import Any

Json = dict[str, Any]

B = "/api/2.0/serving-endpoints"
FAULTS = "/_emulator/faults"
HEADER = "X-Emulator-Fault"
UP = 2.0
"""Seconds of the workspace's clock until an 8B serves, at a speedup of 60."""
ASK = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}


def status(code: int, **fields: object) -> Json:
    return {"type": "status", "status": code, **fields}
