"""The body of `GET …/get-model-optimization-info/{model}/{version}`."""

from servemu.catalog.tables import CatalogModel


def optimization_info(model: CatalogModel) -> dict[str, object]:
    """The wire body for a model that exists (facts/provisioned_throughput §1).

    `dbus` was seen in March 2024 and is absent from every later sample: left out. For models
    sized in units only these two keys were reported. The shape for the ineligible is a GUESS;
    clients ask for `optimizable` false or absent and no chunk size. An unknown model or version
    is an error of the caller's making.
    """
    if model.takes_model_units:
        return {"optimizable": True, "model_unit_chunk_size": model.family.unit_chunk}
    if not model.takes_throughput:
        return {"optimizable": False}
    return {
        "optimizable": True,
        "model_type": model.family.model_type,
        "throughput_chunk_size": model.chunk,
    }
