"""A model that somebody registered answers as itself: weights, tokenizer and template its own."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from servemu.settings import Settings
from servemu.testing import Emulator, serve

Json = dict[str, Any]
B = "/api/2.0/serving-endpoints"
MLFLOW = "/api/2.0/mlflow/unity-catalog"
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<assistant>"
SIZES = {
    "vocab_size": 258,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}
CAUSAL: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**GROUPED)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**GROUPED)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**GROUPED)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**GROUPED, head_dim=8)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**GROUPED, head_dim=8)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=258,
            n_positions=256,
            n_embd=32,
            n_layer=2,
            n_head=4,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    ),
}
FIRST_INPUT = {
    "llm/v1/chat": "messages",
    "llm/v1/completions": "prompt",
    "llm/v1/embeddings": "input",
}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: id for id, token in enumerate(["<s>", "</s>", *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", model_max_length=256
    )
    tokenizer.chat_template = TEMPLATE  # of a chat model; `log` leaves it out elsewhere
    return tokenizer


def log(folder: Path, model: PreTrainedModel, task: str, **metadata: str) -> Path:
    """The folder that MLflow 3.17 uploads (facts/uc_registry §3)."""
    model.save_pretrained(folder / "model")
    tokenizer = byte_tokenizer()
    if task != "llm/v1/chat":
        tokenizer.chat_template = None
    tokenizer.save_pretrained(folder / "components/tokenizer")
    described = {
        "flavors": {"transformers": {"task": "text-generation", "inference_task": task}},
        "metadata": {"task": task, **metadata},
        "mlflow_version": "3.17.2",
        "signature": {"inputs": json.dumps([{"name": FIRST_INPUT[task], "type": "string"}])},
    }
    (folder / "MLmodel").write_text(json.dumps(described))
    return folder


@dataclass(frozen=True, slots=True)
class Workspace:
    client: httpx.Client

    def register(self, folder: Path, name: str = "c.s.m") -> str:
        """The number of the new version."""
        self.client.post(MLFLOW + "/registered-models/create", json={"name": name})
        made = self.client.post(MLFLOW + "/model-versions/create", json={"name": name})
        number: str = made.json()["model_version"]["version"]
        root = f"/api/2.0/fs/files/Models/{name.replace('.', '/')}/{number}"
        for file in folder.rglob("*"):
            if file.is_file():
                path = f"{root}/{file.relative_to(folder)}"
                assert self.client.put(path, content=file.read_bytes()).status_code == 204
        named = {"name": name, "version": number}
        done = self.client.post(MLFLOW + "/model-versions/finalize", json=named)
        assert done.json()["model_version"]["status"] == "READY"
        return number

    def info(self, version: str, name: str = "c.s.m") -> httpx.Response:
        return self.client.get(f"{B}/get-model-optimization-info/{name}/{version}")

    def deploy(self, *versions: str, name: str = "c.s.m", traffic: Json | None = None) -> Json:
        """Create the endpoint `e`; how it is when it has settled."""
        chunk = self.info(versions[0], name).json()["throughput_chunk_size"]
        entities = [
            {
                "entity_name": name,
                "entity_version": version,
                "min_provisioned_throughput": chunk,
                "max_provisioned_throughput": chunk,
            }
            for version in versions
        ]
        config = {"served_entities": entities} | ({"traffic_config": traffic} if traffic else {})
        made = self.client.post(B, json={"name": "e", "config": config})
        assert made.status_code == 200, made.text
        while (found := self.state())["state"]["config_update"] == "IN_PROGRESS":
            self.client.post("/_emulator/clock/advance", json={"seconds": 3600})
        return found

    def state(self) -> Json:
        body: Json = self.client.get(f"{B}/e").json()
        return body

    def ask(self, **body: object) -> Json:
        answer = self.client.post("/serving-endpoints/e/invocations", json=body)
        assert answer.status_code == 200, answer.text
        given: Json = answer.json()
        return given


@pytest.fixture(scope="module")
def local() -> Iterator[Emulator]:
    with serve(Settings(speedup=600)) as emulator:
        yield emulator


@pytest.fixture
def mine(local: Emulator, connect: Callable[[str], httpx.Client]) -> Iterator[Workspace]:
    with connect(local.url) as client:
        yield Workspace(client)


def greedy(model: PreTrainedModel, prompt: str, most: int) -> str:
    """What transformers itself makes of the prompt."""
    tokenizer = byte_tokenizer()
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    made = model.eval().generate(ids, max_new_tokens=most, do_sample=False)
    return str(tokenizer.decode(made[0][ids.shape[1] :], skip_special_tokens=True))


def seeded(make: Callable[[], PreTrainedModel], seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    model = make()
    with torch.no_grad():  # random weights of the usual size repeat one token for ever
        for weights in model.parameters():
            weights.mul_(4)
    return model


@pytest.mark.parametrize("family", CAUSAL)
def test_completions_are_those_of_the_logged_weights(
    mine: Workspace, tmp_path: Path, family: str
) -> None:
    model = seeded(CAUSAL[family])
    version = mine.register(log(tmp_path, model, "llm/v1/completions"))
    assert mine.deploy(version)["state"]["ready"] == "READY"
    answer = mine.ask(prompt="What is Apache Spark?", max_tokens=24, temperature=0)
    assert answer["choices"][0]["text"] == greedy(model, "What is Apache Spark?", 24)


def test_chat_uses_the_template_that_was_logged(mine: Workspace, tmp_path: Path) -> None:
    model = seeded(CAUSAL["llama"])
    mine.deploy(mine.register(log(tmp_path, model, "llm/v1/chat")))
    messages = [{"role": "user", "content": "Hi"}]
    answer = mine.ask(messages=messages, max_tokens=24, temperature=0)
    expected = greedy(model, "<user>Hi<assistant>", 24)
    assert answer["choices"][0]["message"]["content"] == expected


@pytest.mark.parametrize(("kind", "length"), [("gte-large", None), ("bge-large", 1.0)])
def test_embeddings_are_the_first_token_and_only_bge_has_unit_length(
    mine: Workspace, tmp_path: Path, kind: str, length: float | None
) -> None:
    torch.manual_seed(0)
    model = BertModel(BertConfig(**SIZES), add_pooling_layer=False).eval()
    mine.deploy(mine.register(log(tmp_path, model, "llm/v1/embeddings", model_type=kind)))
    got = torch.tensor(mine.ask(input="Hello")["data"][0]["embedding"])
    ids = byte_tokenizer()("Hello", return_tensors="pt").input_ids
    with torch.no_grad():
        own = model(ids).last_hidden_state[0, 0]
    expected = own if length is None else own / own.norm()
    assert torch.allclose(got, expected, atol=1e-4)


def test_two_versions_share_the_traffic_and_each_answers_as_itself(
    mine: Workspace, tmp_path: Path
) -> None:
    both = [seeded(CAUSAL["llama"], seed) for seed in (1, 2)]
    versions = [
        mine.register(log(tmp_path / str(n), model, "llm/v1/completions"))
        for n, model in enumerate(both)
    ]
    routes = [{"served_model_name": f"m-{v}", "traffic_percentage": 50} for v in versions]
    mine.deploy(*versions, traffic={"routes": routes})
    for version, model in zip(versions, both, strict=True):
        path = f"/serving-endpoints/e/served-models/m-{version}/invocations"
        body = {"prompt": "Spark", "max_tokens": 12, "temperature": 0}
        text = mine.client.post(path, json=body).json()["choices"][0]["text"]
        assert text == greedy(model, "Spark", 12)
    split = {
        mine.ask(prompt="Spark", max_tokens=12, temperature=0)["choices"][0]["text"]
        for _ in range(40)
    }
    assert split == {greedy(model, "Spark", 12) for model in both}


def test_served_model_is_neither_deleted_nor_renamed(mine: Workspace, tmp_path: Path) -> None:
    mine.deploy(mine.register(log(tmp_path, seeded(CAUSAL["llama"]), "llm/v1/chat")))
    for path, method, more in (
        ("/registered-models/delete", "DELETE", {}),
        ("/model-versions/delete", "DELETE", {"version": "1"}),
        ("/registered-models/update", "PATCH", {"new_name": "c.s.n"}),
    ):
        refused = mine.client.request(method, MLFLOW + path, json={"name": "c.s.m", **more})
        assert (refused.status_code, refused.json()["error_code"]) == (409, "RESOURCE_CONFLICT")
    assert mine.client.delete(f"{B}/e").status_code == 200
    done = mine.client.request(
        "DELETE", MLFLOW + "/registered-models/delete", json={"name": "c.s.m"}
    )
    assert done.status_code == 200


def test_broken_weights_fail_the_deployment_and_the_logs_say_why(
    mine: Workspace, tmp_path: Path
) -> None:
    folder = log(tmp_path, seeded(CAUSAL["llama"]), "llm/v1/chat")
    weights = folder / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    found = mine.deploy(mine.register(folder))
    assert found["state"] == {
        "ready": "NOT_READY",
        "config_update": "UPDATE_FAILED",
        "suspend": "NOT_SUSPENDED",
    }
    entity = found["pending_config"]["served_entities"][0]
    assert entity["state"]["deployment"] == "DEPLOYMENT_FAILED"
    assert "cannot be loaded" in entity["state"]["deployment_state_message"]
    logs = mine.client.get(f"{B}/e/served-models/m-1/logs", params={"config_version": 1}).json()
    assert "cannot be loaded" in logs["logs"]


def without(key: str) -> Callable[[Json], None]:
    return lambda described: described.pop(key)


INELIGIBLE: dict[str, tuple[Callable[[Json], object], str]] = {
    "no flavor": (lambda d: d["flavors"].pop("transformers"), "transformers flavor"),
    "no task": (
        lambda d: (
            (d.pop("metadata"), d["flavors"]["transformers"].pop("inference_task"))
            and d["signature"].update(inputs="[]")
        ),
        "Its task is 'text-generation'",
    ),
    "no signature": (without("signature"), "no signature"),
    "old MLflow": (lambda d: d.update(mlflow_version="2.10.2"), "MLflow 2.10.2"),
    "adapter": (
        lambda d: d["flavors"]["transformers"].update(peft_adaptor="peft"),
        "PEFT adapter",
    ),
    "wrong task": (
        lambda d: d["metadata"].update(task="llm/v1/embeddings"),
        "does not fit the architecture LlamaForCausalLM",
    ),
}


@pytest.mark.parametrize("case", INELIGIBLE)
def test_ineligible_model_says_why_and_cannot_be_deployed(
    mine: Workspace, tmp_path: Path, case: str
) -> None:
    folder = log(tmp_path, seeded(CAUSAL["llama"]), "llm/v1/chat")
    change, why = INELIGIBLE[case]
    described = json.loads((folder / "MLmodel").read_text())
    change(described)
    (folder / "MLmodel").write_text(json.dumps(described))
    version = mine.register(folder)
    answer = mine.info(version)
    assert answer.json() == {"optimizable": False}
    assert why in answer.headers["x-emulator-why"]
    entity = {
        "entity_name": "c.s.m",
        "entity_version": version,
        "min_provisioned_throughput": 0,
        "max_provisioned_throughput": 970,
    }
    body = {"name": "e", "config": {"served_entities": [entity]}}
    refused = mine.client.post(B, json=body)
    assert (refused.status_code, refused.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    real = "Served entity c.s.m is not eligible for Provisioned Throughput."
    assert refused.json()["message"] == real
    assert why in refused.headers["x-emulator-why"]


def test_pickled_weights_are_not_eligible(mine: Workspace, tmp_path: Path) -> None:
    folder = log(tmp_path, seeded(CAUSAL["llama"]), "llm/v1/chat")
    shutil.move(folder / "model/model.safetensors", folder / "model/pytorch_model.bin")
    answer = mine.info(mine.register(folder))
    assert answer.json() == {"optimizable": False}
    assert "not safetensors" in answer.headers["x-emulator-why"]


def test_listing_is_installed_from_the_marketplace_and_deploys(mine: Workspace) -> None:
    listing = "meta_llama_v3_1_8b_instruct"
    names = [one["name"] for one in mine.client.get("/_emulator/listings").json()["listings"]]
    assert listing in names
    install = f"/_emulator/listings/{listing}/install"
    made = mine.client.post(install, json={"name": "mine.llms.llama"})
    assert (made.json()["status"], made.json()["version"]) == ("READY", 1)
    info = mine.info("1", "mine.llms.llama").json()
    assert info == mine.info("4", f"system.ai.{listing}").json()
    missing = mine.client.post("/_emulator/listings/none/install", json={"name": "a.b.c"})
    assert (missing.status_code, missing.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
