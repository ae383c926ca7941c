"""Sizes of a served entity: bands, replicas, model units, and which are refused."""

import pytest

from servemu.catalog import (
    Catalog,
    ThroughputBand,
    ThroughputInvalid,
    ThroughputRequest,
    check_entity_count,
    dbus,
    load_catalog,
    provisioned_rate,
    replicas,
    throughput_band,
    unit_replicas,
)

LLAMA_8B = "system.ai.meta_llama_v3_1_8b_instruct"


@pytest.fixture
def catalog() -> Catalog:
    return load_catalog()


@pytest.mark.parametrize("name", ["meta_llama_3_8b", "meta_llama_3_70b", "meta_llama_v3_1_405b"])
def test_base_llama_of_system_ai_is_refused_with_the_reason(catalog: Catalog, name: str) -> None:
    model = catalog.models[f"system.ai.{name}"]
    with pytest.raises(ThroughputInvalid) as refused:
        throughput_band(model, ThroughputRequest(0, 19000))
    assert refused.value.message == (
        "Base versions of Meta Llama models are not supported for deployment from system.ai."
    )


def test_model_unit_model_is_not_eligible_for_tokens_per_second(catalog: Catalog) -> None:
    model = catalog.models["system.ai.gpt-oss-120b"]
    with pytest.raises(ThroughputInvalid) as refused:
        throughput_band(model, ThroughputRequest(100, 100))
    assert refused.value.entity == "system.ai.gpt-oss-120b"
    assert refused.value.message == (
        "Served entity system.ai.gpt-oss-120b is not eligible for Provisioned Throughput."
    )


def test_page_script_sizes_are_two_and_three_replicas(catalog: Catalog) -> None:
    model = catalog.models["ml.llm-catalog.foundation-model"]
    assert "3" in model.versions
    assert throughput_band(model, ThroughputRequest(3160, 4740)) == ThroughputBand(3160, 4740)
    assert (replicas(3160, 1580), replicas(4740, 1580)) == (2, 3)


@pytest.mark.parametrize(
    ("asked", "expected"), [(0, 0), (1, 1), (970, 1), (971, 2), (1940, 2), (100_000, 104)]
)
def test_replicas_are_whole_chunks_rounded_up(asked: int, expected: int) -> None:
    assert replicas(asked, 970) == expected


@pytest.mark.parametrize(("asked", "expected"), [(0, 0.0), (19000, 106.0), (19001, 212.0)])
def test_dbus_are_those_of_the_observed_echo(catalog: Catalog, asked: int, expected: float) -> None:
    assert dbus(asked, catalog.models[LLAMA_8B]) == expected


def test_fifty_units_of_maverick_deliver_the_published_rate(catalog: Catalog) -> None:
    model = catalog.models["system.ai.llama-4-maverick"]
    assert provisioned_rate(unit_replicas(model, 50), model) == 3250


def test_two_replicas_of_8b_deliver_two_chunks(catalog: Catalog) -> None:
    assert provisioned_rate(2, catalog.models[LLAMA_8B]) == 38000


@pytest.mark.parametrize(
    ("request_", "band"),
    [
        (ThroughputRequest(0, 19000), ThroughputBand(0, 19000)),
        (ThroughputRequest(19000, 19000), ThroughputBand(19000, 19000)),
        (ThroughputRequest(None, 19000, scale_to_zero=True), ThroughputBand(0, 19000)),
        (ThroughputRequest(None, 19000), ThroughputBand(19000, 19000)),
        (ThroughputRequest(970, 1940), ThroughputBand(970, 1940)),
    ],
)
def test_band_fills_in_the_minimum_and_keeps_sizes_off_the_grid(
    catalog: Catalog, request_: ThroughputRequest, band: ThroughputBand
) -> None:
    assert throughput_band(catalog.models[LLAMA_8B], request_) == band


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ThroughputRequest(100, None), "max_provisioned_throughput is required for {}."),
        (
            ThroughputRequest(0, 0),
            "max_provisioned_throughput must be greater than 0 for {}, got 0.",
        ),
        (
            ThroughputRequest(-1, 19000),
            "min_provisioned_throughput must not be negative for {}, got -1.",
        ),
        (
            ThroughputRequest(0, -5),
            "max_provisioned_throughput must not be negative for {}, got -5.",
        ),
        (
            ThroughputRequest(38000, 19000),
            "min_provisioned_throughput (38000) must not be greater than "
            "max_provisioned_throughput (19000) for {}.",
        ),
    ],
)
def test_band_that_cannot_be_is_refused(
    catalog: Catalog, request_: ThroughputRequest, message: str
) -> None:
    with pytest.raises(ThroughputInvalid) as refused:
        throughput_band(catalog.models[LLAMA_8B], request_)
    assert refused.value.message == message.format(LLAMA_8B)


def test_strict_grid_refuses_what_is_no_multiple_of_the_chunk(catalog: Catalog) -> None:
    with pytest.raises(ThroughputInvalid) as refused:
        throughput_band(catalog.models[LLAMA_8B], ThroughputRequest(970, 19000), strict=True)
    assert refused.value.message == (
        f"min_provisioned_throughput must be a multiple of 19000 for {LLAMA_8B}, got 970."
    )


@pytest.mark.parametrize("units", [-50, 0, 4, 75])
def test_model_units_off_the_grid_are_refused(catalog: Catalog, units: int) -> None:
    model = catalog.models["system.ai.gpt-oss-20b"]
    with pytest.raises(ThroughputInvalid) as refused:
        unit_replicas(model, units)
    assert refused.value.message == (
        "provisioned_model_units must be a positive multiple of 50 for "
        f"system.ai.gpt-oss-20b, got {units}."
    )


def test_model_units_of_a_tokens_per_second_model_are_refused(catalog: Catalog) -> None:
    with pytest.raises(ThroughputInvalid, match="is not eligible"):
        unit_replicas(catalog.models[LLAMA_8B], 50)


def test_maverick_shares_its_endpoint_with_no_other_entity(catalog: Catalog) -> None:
    maverick = catalog.models["system.ai.llama-4-maverick"]
    check_entity_count([maverick])
    with pytest.raises(ThroughputInvalid, match="must be the only served entity"):
        check_entity_count([catalog.models["system.ai.gpt-oss-20b"], maverick])
