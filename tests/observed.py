"""What the tests of metrics, events, logs and OpenAPI documents look at, and how those refuse."""

import httpx

B = "/api/2.0/serving-endpoints"
CLOCK = "/_emulator/clock/advance"
START = 1_750_000_000_000
"""ms: where the paused clock stands."""
ENTITY = "foundation-model-3"
GTE = {
    "entity_name": "system.ai.gte_large_en_v1_5",
    "entity_version": "1",
    "scale_to_zero_enabled": False,
}
HI = [{"role": "user", "content": "Hi"}]


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    return answer.status_code, answer.json()["error_code"], answer.json()["message"]
