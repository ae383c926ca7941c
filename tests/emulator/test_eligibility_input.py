"""An uploaded MLmodel or config.json may be anything: it is ineligible, and never a failure."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servemu.catalog import load_catalog
from servemu.registry.eligibility import Eligible, Ineligible, examine

Json = dict[str, Any]
CATALOG = load_catalog()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


def described() -> Json:
    return {
        "flavors": {"transformers": {"task": "text-generation", "inference_task": "llm/v1/chat"}},
        "metadata": {"task": "llm/v1/chat", "databricks_model_size_parameters": "8b"},
        "mlflow_version": "3.17.2",
        "signature": {"inputs": '[{"name": "messages"}]'},
    }


def config() -> Json:
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8}


def lay(folder: Path, mlmodel: str, config: str) -> Path:
    (folder / "model").mkdir(exist_ok=True)
    (folder / "MLmodel").write_text(mlmodel)
    (folder / "model/config.json").write_text(config)
    (folder / "model/model.safetensors").write_bytes(b"")
    return folder


def test_whole_folder_is_eligible(tmp_path: Path) -> None:
    found = examine(lay(tmp_path, json.dumps(described()), json.dumps(config())), CATALOG)
    assert (found.task, found.family.name) == ("llm/v1/chat", CATALOG.families["llama-8b"].name)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), value=JSON)
def test_any_value_in_any_place_is_examined(tmp_path: Path, data: Any, value: object) -> None:
    both = (described(), config())
    places = [(one, key) for one in both for key in one]
    places += [(one[key], inner) for one in both for key in one if isinstance(one[key], dict)
               for inner in one[key]]  # fmt: skip
    holder, key = data.draw(st.sampled_from(places))
    holder[key] = value
    lay(tmp_path, json.dumps(both[0]), json.dumps(both[1]))
    try:
        assert isinstance(examine(tmp_path, CATALOG), Eligible)
    except Ineligible as refused:
        assert len(refused.why) < 500


LAUGHS = "\n".join(
    ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20))]
)


@pytest.mark.parametrize(
    "mlmodel",
    [
        "",
        "[]",
        "\x00",
        "[" * 100_000,
        "a: " + "x" * (5 << 20),
        f"{LAUGHS}\nmetadata: {{task: *a19}}\nflavors: {{transformers: {{task: *a19}}}}",
        '{"mlflow_version": "' + "9" * 5000 + '", "signature": 1, "flavors": {"transformers": {}}}',
    ],
    ids=["empty", "list", "nul", "deep", "large", "laughs", "digits"],
)
def test_hostile_mlmodel_is_ineligible(tmp_path: Path, mlmodel: str) -> None:
    with pytest.raises(Ineligible) as refused:
        examine(lay(tmp_path, mlmodel, json.dumps(config())), CATALOG)
    assert len(refused.value.why) < 500
