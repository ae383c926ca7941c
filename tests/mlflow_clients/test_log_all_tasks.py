"""Every task the page names, versions side by side, presigned uploads, and what is not eligible."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

Json = dict[str, Any]

ENDPOINTS = "/api/2.0/serving-endpoints"
INFO = ENDPOINTS + "/get-model-optimization-info/catalog.schema."
PROMPT = "What is Apache Spark?"
RAW: Json = {"prompt": PROMPT, "use_raw_prompt": True, "temperature": 0}  # else as a chat's turn


def entity(name: str, version: int, throughput: int, label: str | None = None) -> Json:
    return {
        "name": label or f"{name}-{version}",
        "entity_name": f"catalog.schema.{name}",
        "entity_version": str(version),
        "min_provisioned_throughput": throughput,
        "max_provisioned_throughput": throughput,
    }


def continued(folder: Path, prompt: str, num_tokens: int) -> str:
    """What `model.generate` of these weights writes greedily after the prompt itself."""
    model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    given = tokenizer(prompt, return_tensors="pt")
    answer = model.generate(
        input_ids=given["input_ids"], max_new_tokens=num_tokens, do_sample=False
    )
    text: str = tokenizer.decode(answer[0, given["input_ids"].shape[1] :], skip_special_tokens=True)
    return text


@pytest.fixture(scope="module")
def first(llama: Callable[[int], Path], log: Callable[..., Json]) -> Path:
    """The weights of version 1, logged by the completions cell."""
    folder = llama(3)
    log("log_completions.py", folder, "completions")
    return folder


@pytest.fixture(scope="module")
def second(first: Path, llama: Callable[[int], Path], log: Callable[..., Json]) -> Path:
    """The weights of version 2, sent the way of older MLflow: one presigned URL a file."""
    folder = llama(4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_USE_DATABRICKS_SDK_MODEL_ARTIFACTS_REPO_FOR_UC", "false")
        log("log_completions.py", folder, "completions")
    return folder


def test_completions_continue_as_generate_of_the_logged_weights(
    first: Path, create: Callable[..., Json], workspace: Any
) -> None:
    create("completions", "create_endpoint_deployments.py")
    answer = workspace.ask("completions", {**RAW, "max_tokens": 24})
    expected = continued(first, PROMPT, 24)
    assert answer["choices"][0]["text"] == expected
    assert len(set(expected)) > 4


def test_presigned_uploads_send_every_file_of_the_version(second: Path, workspace: Any) -> None:
    folder = "/api/2.0/fs/directories/Models/catalog/schema/completions/2"
    asked = workspace.done("GET", "/_emulator/requests?limit=10000")["requests"]
    uploads = [one for one in asked if one["path"] == "/api/2.0/fs/create-upload-url"]
    num_files = 0
    folders = [folder]
    while folders:
        for entry in workspace.done("GET", folders.pop())["contents"]:
            if entry["is_directory"]:
                folders.append(f"/api/2.0/fs/directories{entry['path']}")
            else:
                num_files += 1
    assert len(uploads) == num_files > 10


def test_two_versions_share_the_traffic_and_answer_as_themselves(
    first: Path, second: Path, workspace: Any
) -> None:
    chunk = workspace.done("GET", INFO + "completions/2")["throughput_chunk_size"]
    routes = [
        {"served_model_name": f"completions-{version}", "traffic_percentage": 50}
        for version in (1, 2)
    ]
    config = {
        "served_entities": [entity("completions", version, chunk) for version in (1, 2)],
        "traffic_config": {"routes": routes},
    }
    workspace.done("POST", ENDPOINTS, {"name": "split", "config": config})
    workspace.deployed("split")
    question = {**RAW, "max_tokens": 12}
    texts = {
        version: workspace.done(
            "POST",
            f"/serving-endpoints/split/served-models/completions-{version}/invocations",
            question,
        )["choices"][0]["text"]
        for version in (1, 2)
    }
    assert texts == {1: continued(first, PROMPT, 12), 2: continued(second, PROMPT, 12)}
    heard = {workspace.ask("split", question)["choices"][0]["text"] for _ in range(20)}
    assert heard == set(texts.values())


def test_gte_embeddings_are_the_models_own_vectors_at_full_length(
    bert: Path, log: Callable[..., Json], create: Callable[..., Json], workspace: Any
) -> None:
    log("log_gte_embeddings.py", bert, "gte")
    assert workspace.done("GET", INFO + "gte/1")["model_type"] == "gte"
    create("gte")
    texts = [PROMPT, "Spark"]
    answer = workspace.ask("gte", {"input": texts})
    heard = torch.tensor([row["embedding"] for row in answer["data"]])
    model, tokenizer = AutoModel.from_pretrained(bert), AutoTokenizer.from_pretrained(bert)
    with torch.no_grad():
        states = [model(**tokenizer(text, return_tensors="pt"))[0] for text in texts]
    own = torch.cat([state[:, 0] for state in states])
    assert torch.nn.functional.cosine_similarity(heard, own).min() > 0.9999
    torch.testing.assert_close(heard, own, rtol=1e-3, atol=1e-3)
    assert abs(float(own[0].norm()) - 1) > 0.1  # so that normalising would be seen


def test_distilled_llama_is_sized_by_its_metadata_and_answers(
    llama: Callable[[int], Path],
    log: Callable[..., Json],
    create: Callable[..., Json],
    workspace: Any,
) -> None:
    log("log_distilled_llama.py", llama(5), "distilled")
    info = workspace.done("GET", INFO + "distilled/1")
    assert info["model_type"] == "llama"
    create("distilled")
    question = {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 5,
        "temperature": 0,  # sampled, one in some hundred answers of random weights ends at once
    }
    assert workspace.ask("distilled", question)["usage"]["completion_tokens"] == 5


def test_model_without_an_llm_task_is_refused_with_the_reason(
    llama: Callable[[int], Path], log: Callable[..., Json], workspace: Any
) -> None:
    log("log_plain_generation.py", llama(6), "plain")
    info = workspace.call("GET", INFO + "plain/1")
    assert (info.status_code, info.json()["optimizable"]) == (200, False)
    assert "'text-generation'" in info.headers["X-Emulator-Why"]
    body = {"name": "plain", "config": {"served_entities": [entity("plain", 1, 100)]}}
    refused = workspace.call("POST", ENDPOINTS, body)
    answer = refused.json()
    assert (refused.status_code, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert answer["message"] == (
        "Served entity catalog.schema.plain is not eligible for Provisioned Throughput."
    )
