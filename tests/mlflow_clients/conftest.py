"""An emulator in a process of its own, the cells as files, tiny models in place of hub names.

`SERVEMU` is the emulator's program: these environments hold MLflow and nothing of ours.
"""

import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_OFFLINE": "1",
    "TQDM_DISABLE": "1",
    # MLflow loads each model once more in a process of its own, 20 to 40 s, to see what it imports.
    # Cut short, it logs its default requirements instead; everything else of log_model is as it is.
    "MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT": "1",
}
FOREIGN = ("DATABRICKS_", "ARM_", "AZURE_", "GOOGLE_", "MLFLOW_TRACKING_", "MLFLOW_REGISTRY_")
for name in list(os.environ):
    if name.startswith(FOREIGN) or name.lower().endswith("_proxy"):
        del os.environ[name]
os.environ.update(QUIET)

import requests  # noqa: E402
import torch  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors  # noqa: E402
from transformers import (  # noqa: E402
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

Json = dict[str, Any]

EXAMPLES = Path(__file__).parent / "examples"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}~{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
CHARACTERS = [chr(code) for code in range(33, 127)]


@dataclass(frozen=True, slots=True)
class Workspace:
    """A workspace of the running emulator, as its user sees it over HTTP."""

    url: str
    token: str
    session: requests.Session = field(default_factory=requests.Session)

    def call(self, method: str, path: str, body: object = None) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        return self.session.request(
            method, self.url + path, json=body, headers=headers, timeout=120
        )

    def done(self, method: str, path: str, body: object = None) -> Json:
        """The body of an answer that must be a success."""
        response = self.call(method, path, body)
        assert response.status_code == 200, response.text
        answer: Json = response.json()
        return answer

    def ask(self, endpoint: str, question: Mapping[str, object]) -> Json:
        return self.done("POST", f"/serving-endpoints/{endpoint}/invocations", question)

    def deployed(self, endpoint: str) -> Json:
        """The endpoint after two hours on the workspace's clock."""
        self.done("POST", "/_emulator/clock/advance", {"seconds": 7200})
        found = self.done("GET", f"/api/2.0/serving-endpoints/{endpoint}")
        assert found["state"]["ready"] == "READY", found
        return found


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the emulator of this run answers, started as a user starts it."""
    command = [os.environ["SERVEMU"], "up", "--port", "0", "--engine", "local", "--seed", "7"]
    folder = tmp_path_factory.mktemp("emulator")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        assert process.stdout is not None
        try:
            ready = next(line for line in process.stdout if line.startswith("servemu ready "))
            yield ready.split()[-1]
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def workspace(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Nothing but host and token is set; MLflow keeps its own store in a fresh folder."""
    token = f"emu.{uuid.uuid4().hex}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABRICKS_HOST", url)
        patch.setenv("DATABRICKS_TOKEN", token)
        folder = tmp_path_factory.mktemp("user")
        patch.setenv("DATABRICKS_CONFIG_FILE", str(folder / "none"))
        patch.chdir(folder)
        yield Workspace(url, token)


@pytest.fixture(scope="session")
def run_example() -> Callable[..., Json]:
    """Runs an example with the quoted names of the page replaced; gives its variables."""

    def run_example(name: str, swaps: Mapping[str, str]) -> Json:
        path = EXAMPLES / name
        source = path.read_text(encoding="utf-8")
        for old, new in swaps.items():
            assert old in source, f"{old} is not in {name}"
            source = source.replace(old, new)
        variables: Json = {"__name__": "__main__"}
        exec(compile(source, str(path), "exec"), variables)
        return variables

    return run_example


@pytest.fixture(scope="session")
def log(workspace: Workspace, run_example: Callable[..., Json]) -> Callable[..., Json]:
    """Runs a logging example on a local model, into `catalog.schema.<name>`."""

    def log(example: str, model: Path, name: str) -> Json:
        hub = next(
            hub
            for hub in (
                "meta-llama/Llama-3.3-70B-Instruct",
                "Alibaba-NLP/gte-large-en-v1.5",
                "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
            )
            if hub in (EXAMPLES / example).read_text(encoding="utf-8")
        )
        return run_example(
            example, {json.dumps(hub): json.dumps(str(model)), '"model_name"': json.dumps(name)}
        )

    return log


@pytest.fixture(scope="session")
def create(workspace: Workspace, run_example: Callable[..., Json]) -> Callable[..., Json]:
    """Runs the REST script of the page for an endpoint `name` of `catalog.schema.<name>`."""

    def create(name: str, script: str = "create_endpoint_rest.py") -> Json:
        swaps = {
            '"prov-throughput-endpoint"': json.dumps(name),
            '"ml.llm-catalog.foundation-model"': json.dumps(f"catalog.schema.{name}"),
            "model_version = 3": "model_version = 1",
        }
        if script == "create_endpoint_rest.py":
            swaps["<YOUR-API-URL>"] = workspace.url
            swaps["<YOUR-API-TOKEN>"] = workspace.token
        run_example(script, swaps)
        return workspace.deployed(name)

    return create


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Saves a tiny Llama with the weights of a seed, as a hub folder; gives the folder."""

    def llama(seed: int) -> Path:
        torch.manual_seed(seed)
        tokens = tokenizer(["<s>"])
        config = LlamaConfig(
            vocab_size=len(tokens),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            initializer_range=0.3,  # far from even: neighbours in rank never tie
            bos_token_id=tokens.bos_token_id,
            eos_token_id=tokens.eos_token_id,
        )
        folder = tmp_path_factory.mktemp("llama")
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
        tokens.save_pretrained(folder)
        return folder

    return llama


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny BERT."""
    torch.manual_seed(0)
    tokens = tokenizer(["<s>", "</s>"])
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        initializer_range=0.3,
    )
    folder = tmp_path_factory.mktemp("bert")
    BertModel(config).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


def tokenizer(around: list[str]) -> PreTrainedTokenizerFast:
    """A token is a visible ASCII character or a space, so that text says which tokens it was."""
    vocab = {text: id for id, text in enumerate(["<s>", "</s>", "<pad>", "Ġ", *CHARACTERS])}
    whole = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    single = " ".join([around[0], "$A", *around[1:]])
    whole.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[(text, vocab[text]) for text in around]
    )
    tokens = PreTrainedTokenizerFast(
        tokenizer_object=whole,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    tokens.chat_template = TEMPLATE
    return tokens
