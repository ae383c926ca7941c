"""Logged by the page's cell, deployed by its script, it answers as itself: both lines of MLflow."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from transformers import AutoModelForCausalLM, AutoTokenizer

Json = dict[str, Any]

ALIAS = "champion"
CHAT = "catalog.schema.chat"
MESSAGES = [{"role": "user", "content": "What is Apache Spark?"}]
QUESTION: Json = {"messages": MESSAGES, "max_tokens": 24, "temperature": 0}


@pytest.fixture(scope="module")
def weights(llama: Callable[[int], Path]) -> Path:
    return llama(1)


@pytest.fixture(scope="module")
def chat(log: Callable[..., Json], weights: Path) -> str:
    """The chat cell has run: version 1 of this model is there."""
    log("log_chat.py", weights, "chat")
    return CHAT


def generated(folder: Path, messages: list[dict[str, str]], num_tokens: int) -> list[int]:
    """What `model.generate` of these weights answers greedily, as token ids."""
    model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    given = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    answer = model.generate(
        input_ids=given["input_ids"], max_new_tokens=num_tokens, do_sample=False
    )
    ids: list[int] = answer[0, given["input_ids"].shape[1] :].tolist()
    return ids


def checksum(model: torch.nn.Module) -> str:
    """Of all weights, in their own type, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def test_chat_answers_what_generate_of_the_logged_weights_answers(
    chat: str, create: Callable[..., Json], workspace: Any, weights: Path
) -> None:
    create("chat")
    answer = workspace.ask("chat", QUESTION)
    tokenizer = AutoTokenizer.from_pretrained(weights)
    expected = generated(weights, MESSAGES, 24)
    said = answer["choices"][0]["message"]["content"]
    assert tokenizer.encode(said, add_special_tokens=False) == expected
    assert len(set(expected)) > 4  # a model that says something
    assert answer["usage"]["completion_tokens"] == 24


@pytest.mark.parametrize("which", ["/1", f"@{ALIAS}"], ids=["version", "alias"])
def test_load_model_gives_back_the_logged_weights(chat: str, weights: Path, which: str) -> None:
    MlflowClient().set_registered_model_alias(chat, ALIAS, 1)
    loaded = mlflow.transformers.load_model(f"models:/{chat}{which}", return_type="components")
    logged = AutoModelForCausalLM.from_pretrained(weights, torch_dtype=torch.bfloat16)
    assert checksum(loaded["model"]) == checksum(logged)


def test_tracking_in_the_workspace_keeps_the_run_of_the_cell(
    workspace: Any,
    log: Callable[..., Json],
    llama: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "/Users/me@example.com/notebook")  # has its own
    log("log_chat.py", llama(2), "tracked")
    version = MlflowClient().get_model_version("catalog.schema.tracked", "1")
    run = MlflowClient().get_run(version.run_id)
    assert (version.status, run.info.status) == ("READY", "FINISHED")
    info = workspace.done(
        "GET", "/api/2.0/serving-endpoints/get-model-optimization-info/catalog.schema.tracked/1"
    )
    assert (info["optimizable"], info["model_type"]) == (True, "llama")
