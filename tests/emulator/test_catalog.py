"""The catalogue: what is in it, what it answers, how a user's tables change it."""

from importlib.resources import files

import pytest

from servemu.catalog import (
    Catalog,
    CatalogInvalid,
    CatalogModel,
    load_catalog,
    optimization_info,
)

LLAMA_8B = "system.ai.meta_llama_v3_1_8b_instruct"
SEEN_VERSIONS = {
    # facts/provisioned_throughput §6
    "dbrx_base": ["2"],
    "dbrx_instruct": ["3"],
    "llama_v3_2_1b_instruct": ["1", "2", "3", "4"],
    "llama_v3_2_3b_instruct": ["2", "3", "4"],
    "meta_llama_v3_1_8b_instruct": ["2", "3", "4"],
    "meta_llama_v3_1_70b_instruct": ["2", "3", "4"],
    "meta_llama_v3_1_405b": ["1"],
    "meta_llama_v3_1_405b_instruct_fp8": ["1"],
    "llama_v3_3_70b_instruct": ["1"],
    "meta_llama_3_8b": ["1"],
    "meta_llama_3_8b_instruct": ["1"],
    "meta_llama_3_70b": ["1"],
    "meta_llama_3_70b_instruct": ["2"],
    "mistral_7b_v0_1": ["2"],
    "mistral_7b_instruct_v0_1": ["1"],
    "mistral_7b_instruct_v0_2": ["1", "2"],
    "mixtral_8x7b_v0_1": ["2"],
    "llama-4-maverick": ["1"],
    "gpt-oss-120b": ["1"],
    "gpt-oss-20b": ["1"],
    "gemma-3-12b-it": ["1"],
    "qwen3-next-80b-a3b-instruct": ["1"],
    "qwen35-122b-a10b": ["1"],
    "databricks-qwen35-122b-a10b": ["1"],
    "qwen3-embedding-0-6b": ["1"],
    "gte_large_en_v1_5": ["1"],
    "bge_large_en_v1_5": ["1"],
}


@pytest.fixture
def catalog() -> Catalog:
    return load_catalog()


@pytest.mark.parametrize(("name", "versions"), SEEN_VERSIONS.items())
def test_every_name_of_system_ai_that_was_seen_is_there(
    catalog: Catalog, name: str, versions: list[str]
) -> None:
    assert list(catalog.models[f"system.ai.{name}"].versions) == versions


def test_model_is_looked_up_by_its_full_name(catalog: Catalog) -> None:
    assert catalog.model(LLAMA_8B) is catalog.models[LLAMA_8B]
    assert catalog.model("system.ai.nothing") is None


@pytest.mark.parametrize(
    ("name", "body"),
    [
        (
            "ml.llm-catalog.foundation-model",
            {"optimizable": True, "model_type": "llama", "throughput_chunk_size": 1580},
        ),
        (LLAMA_8B, {"optimizable": True, "model_type": "llama", "throughput_chunk_size": 19000}),
        (
            "system.ai.gte_large_en_v1_5",
            {"optimizable": True, "model_type": "gte", "throughput_chunk_size": 980},
        ),
        ("system.ai.gpt-oss-120b", {"optimizable": True, "model_unit_chunk_size": 50}),
        ("system.ai.qwen3-embedding-0-6b", {"optimizable": True, "model_unit_chunk_size": 50}),
        ("system.ai.meta_llama_3_8b", {"optimizable": False}),
        ("system.ai.databricks-claude-sonnet-4-5", {"optimizable": False}),
    ],
)
def test_optimization_info_has_the_observed_body(
    catalog: Catalog, name: str, body: dict[str, object]
) -> None:
    assert optimization_info(catalog.models[name]) == body


def test_own_llama_2_of_2024_has_the_observed_chunk_of_970() -> None:
    catalog = load_catalog({"models": {"main.ml.llama2": {"family": "llama-7b"}}})
    assert optimization_info(catalog.models["main.ml.llama2"]) == {
        "optimizable": True,
        "model_type": "llama",
        "throughput_chunk_size": 970,
    }


def test_embedding_families_have_the_documented_vectors(catalog: Catalog) -> None:
    found = {
        family.name: (family.dimensions, family.normalized, family.context_length)
        for family in catalog.families.values()
        if family.tasks == ("llm/v1/embeddings",)
    }
    assert found == {
        "gte-large": (1024, False, 8192),
        "bge-large": (1024, True, 512),
        "qwen3-embedding": (1024, True, 32768),
    }


def test_stand_in_follows_the_task(catalog: Catalog) -> None:
    for family in catalog.families.values():
        expected = {"llm/v1/embeddings": "all-minilm-l6-v2", "custom": "pyfunc"}
        assert family.stand_in == expected.get(family.tasks[0], "smollm2-135m-instruct")


def test_users_family_may_name_its_own_stand_in() -> None:
    changed = load_catalog({"families": {"llama-8b": {"stand_in": "my-model"}}})
    assert changed.models[LLAMA_8B].family.stand_in == "my-model"


def test_8b_takes_the_observed_ninety_seconds_and_gives_up_after_29_minutes(
    catalog: Catalog,
) -> None:
    family = catalog.models[LLAMA_8B].family
    assert family.creating_seconds + family.loading_seconds == 90
    assert family.capacity_wait_seconds == 29 * 60


def test_fresh_workspace_has_the_listed_pay_per_token_endpoints(catalog: Catalog) -> None:
    found = {each.name: (each.entity_name, each.task) for each in catalog.foundation_endpoints}
    chat, embeddings = "llm/v1/chat", "llm/v1/embeddings"
    assert found == {
        "databricks-gpt-oss-120b": ("system.ai.gpt-oss-120b", chat),
        "databricks-claude-sonnet-4-5": ("system.ai.databricks-claude-sonnet-4-5", chat),
        "databricks-claude-haiku-4-5": ("system.ai.databricks-claude-haiku-4-5", chat),
        "databricks-gpt-5": ("system.ai.databricks-gpt-5", chat),
        "databricks-gpt-oss-20b": ("system.ai.gpt-oss-20b", chat),
        "databricks-qwen3-next-80b-a3b-instruct": ("system.ai.qwen3-next-80b-a3b-instruct", chat),
        "databricks-qwen35-122b-a10b": ("system.ai.databricks-qwen35-122b-a10b", chat),
        "databricks-llama-4-maverick": ("system.ai.llama-4-maverick", chat),
        "databricks-gemma-3-12b": ("system.ai.gemma-3-12b-it", chat),
        "databricks-gte-large-en": ("system.ai.gte_large_en_v1_5", embeddings),
        "databricks-bge-large-en": ("system.ai.bge_large_en_v1_5", embeddings),
        "databricks-meta-llama-3-1-8b-instruct": (LLAMA_8B, chat),
        "databricks-meta-llama-3-3-70b-instruct": ("system.ai.llama_v3_3_70b_instruct", chat),
        "databricks-qwen3-embedding-0-6b": ("system.ai.qwen3-embedding-0-6b", embeddings),
    }


def test_foundation_model_object_is_that_of_a_real_listing(catalog: Catalog) -> None:
    gte = next(e for e in catalog.foundation_endpoints if e.name == "databricks-gte-large-en")
    assert gte.capabilities == {}
    assert gte.foundation_model() == {
        "name": "system.ai.gte_large_en_v1_5",
        "display_name": "GTE Large (En)",
        "docs": "https://learn.microsoft.com/en-us/azure/databricks/machine-learning/"
        "foundation-models/supported-models#gte-large",
        "description": "Text embeddings of 1024 dimensions for search and clustering; "
        "not normalised.",
        "price": "1.857",
        "input_price": "1.857",
        "price_unit": "DBUs per 1M tokens",
        "pricing_model": "Pay-per-token",
        "model_class": "gte",
        "api_types": ["mlflow/v1/embeddings"],
        "ai_gateway_v2_supported": True,
    }


def test_users_model_gets_the_familys_values_and_its_own_chunk() -> None:
    rows = {"c.s.m": {"family": "llama-8b", "versions": ["1", "2"], "chunk": 1580}}
    model = load_catalog({"models": rows}).models["c.s.m"]
    assert model == CatalogModel(
        full_name="c.s.m",
        versions=("1", "2"),
        family=load_catalog().families["llama-8b"],
        task="llm/v1/chat",
        served_name="m",
        chunk=1580,
    )


def test_users_family_row_changes_only_the_named_keys(catalog: Catalog) -> None:
    changed = load_catalog({"families": {"llama-8b": {"chunk": 500}}})
    assert optimization_info(changed.models[LLAMA_8B]) == {
        "optimizable": True,
        "model_type": "llama",
        "throughput_chunk_size": 500,
    }
    assert changed.families["llama-8b"].dbus_per_chunk == 106
    assert changed.families["llama-70b"] == catalog.families["llama-70b"]
    assert catalog.families["llama-8b"].chunk == 19000


def test_users_empty_refusal_lifts_ours() -> None:
    name = "system.ai.meta_llama_3_8b"
    catalog = load_catalog({"models": {name: {"refusal": ""}}})
    assert optimization_info(catalog.models[name]) == {
        "optimizable": True,
        "model_type": "llama",
        "throughput_chunk_size": 19000,
    }


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"modles": {}},
            "catalog: modles = {} is not allowed; "
            "allowed: the tables families, models, foundation_models",
        ),
        (
            {"families": {"llama-8b": {"chunk": 0}}},
            "catalog.families.llama-8b: chunk = 0 is not allowed; allowed: a whole number above 0",
        ),
        (
            {"families": {"llama-8b": {"loading_seconds": float("nan")}}},
            "catalog.families.llama-8b: loading_seconds = nan is not allowed; "
            "allowed: a number, 0 or above",
        ),
        (
            {"families": {"llama-8b": {"tasks": ["llm/v2/chat"]}}},
            "catalog.families.llama-8b: tasks = ['llm/v2/chat'] is not allowed; "
            "allowed: a list of llm/v1/chat | llm/v1/completions | llm/v1/embeddings | custom",
        ),
        (
            {"families": {"llama-8b": {"unit_chunk": 50}}},
            "catalog.families.llama-8b: chunk = 19000 is not allowed; "
            "allowed: chunk or unit_chunk, not both",
        ),
        (
            {"families": {"mine": {}}},
            "catalog.families.mine: model_type is missing; allowed: a non-empty string",
        ),
        (
            {"models": {"c.s.m": {"family": "llama-8b", "version": "1"}}},
            "catalog.models.\"c.s.m\": version = '1' is not allowed; allowed: the keys "
            "family, versions, task, served_name, chunk, refusal, api_types, signature",
        ),
        (
            {"models": {"c.s.m": {"family": "llama-8b", "versions": [1]}}},
            'catalog.models."c.s.m": versions = [1] is not allowed; '
            'allowed: a list of strings such as ["1"]',
        ),
        (
            {"models": {"c.s.m": {"family": "gte-large", "task": "llm/v1/chat"}}},
            "catalog.models.\"c.s.m\": task = 'llm/v1/chat' is not allowed; "
            "allowed: llm/v1/embeddings",
        ),
        (
            {"models": {"c.s.m": {"family": "gpt-oss-20b", "chunk": 10}}},
            'catalog.models."c.s.m": chunk = 10 is not allowed; '
            "allowed: nothing: the family gpt-oss-20b is not sized in tokens/s",
        ),
        (
            {"models": {"c.s.m": "llama-8b"}},
            "catalog.models.\"c.s.m\": = 'llama-8b' is not allowed; allowed: a table with "
            "family, versions, task, served_name, chunk, refusal, api_types, signature",
        ),
        (
            {"foundation_models": {"databricks-gpt-5": {"entity": "system.ai.gone"}}},
            "catalog.foundation_models.databricks-gpt-5: entity = 'system.ai.gone' "
            "is not allowed; allowed: a model of catalog.models",
        ),
    ],
)
def test_bad_override_is_refused_with_table_key_and_allowed_values(
    overrides: dict[str, object], message: str
) -> None:
    with pytest.raises(CatalogInvalid) as refused:
        load_catalog(overrides)
    assert str(refused.value) == message


def test_model_of_an_unknown_family_is_refused_with_all_families_named(catalog: Catalog) -> None:
    with pytest.raises(CatalogInvalid) as refused:
        load_catalog({"models": {"c.s.m": {"family": "lama-8b"}}})
    assert (refused.value.table, refused.value.key) == ('models."c.s.m"', "family")
    assert refused.value.given == "lama-8b"
    assert refused.value.allowed == ", ".join(catalog.families)


@pytest.mark.parametrize("name", ["families.toml", "models.toml", "foundation_models.toml"])
def test_tables_are_resources_of_the_package(name: str) -> None:
    assert files("servemu.catalog").joinpath(name).is_file()
