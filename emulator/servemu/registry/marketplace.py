"""Marketplace listings put into Unity Catalog, as the button "Get access" does (seed page).

The listings are the models of the catalogue that can be deployed: ready at once, nothing uploaded.
"""

from contextlib import suppress

from servemu.auth import Principal
from servemu.catalog import Catalog, CatalogModel
from servemu.errors import RegisteredModelExists, ResourceNotFound
from servemu.registry.models import RegisteredModels
from servemu.registry.versions import ModelVersions, NewVersion
from servemu_state.records import ModelVersion, RegisteredModel, VersionStatus

SOURCE = "marketplace:"


def listings(catalog: Catalog) -> dict[str, CatalogModel]:
    """What can be installed, by the last level of its name."""
    deployable = (model for model in catalog.models.values() if model.refusal is None)
    return {model.full_name.rpartition(".")[2]: model for model in deployable}


def find_listing(catalog: Catalog, listing: str) -> CatalogModel:
    """Raises `ResourceNotFound`."""
    found = listings(catalog).get(listing)
    if found is None:
        raise ResourceNotFound(f"Listing '{listing[:200]}' does not exist.")
    return found


def install(
    models: RegisteredModels, versions: ModelVersions, caller: Principal, asked: tuple[str, str]
) -> tuple[RegisteredModel, ModelVersion]:
    """`asked`: the listing and the three-level name it is to have; a second time is a new version.

    Raises `ResourceNotFound`, `InvalidParameter`, `CatalogNotFound`, `PermissionDenied`.
    """
    listing, name = asked
    find_listing(models.catalog, listing)
    with suppress(RegisteredModelExists):
        models.create(caller, name, f"Installed from the Marketplace listing {listing}.")
    new = NewVersion(source=SOURCE + listing, status=VersionStatus.READY)
    return versions.create(caller, name, new)
