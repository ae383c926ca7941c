"""Pay-per-token endpoints, and what may be provisioned: the model optimization info."""

from typing import Any

import httpx
import pytest

Json = dict[str, Any]

B = "/api/2.0/serving-endpoints"
MODEL = "ml.llm-catalog.foundation-model"


def test_pay_per_token_endpoint_has_the_recorded_keys(workspace: httpx.Client) -> None:
    provided = workspace.get(f"{B}/databricks-gpt-5").json()
    [entity] = provided["config"]["served_entities"]
    assert provided == {
        "name": "databricks-gpt-5",
        "creation_timestamp": provided["creation_timestamp"],
        "last_updated_timestamp": provided["creation_timestamp"],
        "state": {"ready": "READY", "config_update": "NOT_UPDATING"},
        "config": {
            "served_entities": [
                {
                    "name": "databricks-gpt-5",
                    "type": "FOUNDATION_MODEL",
                    "entity_name": "system.ai.databricks-gpt-5",
                    "foundation_model": entity["foundation_model"],
                }
            ]
        },
        "permission_level": provided["permission_level"],
        "task": "llm/v1/chat",
        "endpoint_type": "FOUNDATION_MODEL_API",
        "capabilities": provided["capabilities"],
    }
    assert {"name", "display_name", "docs", "description"} <= entity["foundation_model"].keys()


def test_fresh_workspace_lists_its_pay_per_token_endpoints(workspace: httpx.Client) -> None:
    listed = workspace.get(B).json()["endpoints"]
    assert "databricks-gpt-5" in [endpoint["name"] for endpoint in listed]
    assert listed == [workspace.get(f"{B}/{endpoint['name']}").json() for endpoint in listed]


@pytest.mark.parametrize(
    ("model", "info"),
    [
        (
            f"{MODEL}/3",
            {"optimizable": True, "model_type": "llama", "throughput_chunk_size": 1580},
        ),
        (
            "system.ai.meta_llama_v3_1_8b_instruct/3",
            {"optimizable": True, "model_type": "llama", "throughput_chunk_size": 19000},
        ),
        (
            "system.ai.gte_large_en_v1_5/1",
            {"optimizable": True, "model_type": "gte", "throughput_chunk_size": 980},
        ),
        ("system.ai.gpt-oss-120b/1", {"optimizable": True, "model_unit_chunk_size": 50}),
        ("system.ai.databricks-gpt-5/1", {"optimizable": False}),
        ("system.ai.meta_llama_3_8b/1", {"optimizable": False}),
    ],
)
def test_optimization_info(workspace: httpx.Client, model: str, info: Json) -> None:
    answer = workspace.get(f"{B}/get-model-optimization-info/{model}")
    assert (answer.status_code, answer.json()) == (200, info)


def test_optimization_info_says_why_base_llama_is_refused(workspace: httpx.Client) -> None:
    answer = workspace.get(f"{B}/get-model-optimization-info/system.ai.meta_llama_3_8b/1")
    assert answer.headers["x-emulator-why"] == (
        "Base versions of Meta Llama models are not supported for deployment from system.ai."
    )
