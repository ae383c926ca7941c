"""Names of models in Unity Catalog: three levels, and which of them there are."""

import re
from collections.abc import Sequence

from servemu.errors import CatalogNotFound, InvalidParameter

LONGEST = 255
"""Characters of a level (DOC "Names", Unity Catalog)."""

_FORBIDDEN = re.compile(r"[\x00-\x20/.\x7f]")
"""DOC: no full stop, space, slash, control character or DELETE."""


def check_name(name: str) -> tuple[str, str, str]:
    """Catalog, schema and model of a full name. Raises `InvalidParameter`.

    MLflow adds its hint about the legacy registry where it reads "specify all three levels"
    (facts/uc_registry §1.4); the rest of the text is a GUESS.
    """
    levels = name.split(".")
    if len(levels) != 3 or not all(levels):
        raise InvalidParameter(
            f"Model name '{_shown(name)}' is not valid: please specify all three levels of the "
            "model in the form `catalog_name.schema_name.model_name`."
        )
    catalog, schema, model = (check_level(level) for level in levels)
    return catalog, schema, model


def check_level(level: str) -> str:
    """One level of a name. Raises `InvalidParameter`; the text is a GUESS."""
    if not level or len(level) > LONGEST or _FORBIDDEN.search(level):
        raise InvalidParameter(
            f"'{_shown(level)}' is not a valid name: 1 to {LONGEST} characters, without full "
            "stops, spaces, slashes and control characters."
        )
    return level


def check_catalog(known: Sequence[str], catalog: str, schema: str) -> None:
    """Whether there is such a schema; `known`: catalogs and `catalog.schema`s, none: all there are.

    Raises `CatalogNotFound`.
    """
    if not known or catalog in known or f"{catalog}.{schema}" in known:
        return
    if any(one.partition(".")[0] == catalog for one in known):
        raise CatalogNotFound(f"Schema '{catalog}.{schema}' does not exist.")
    raise CatalogNotFound(f"Catalog '{catalog}' does not exist.")


def _shown(text: str) -> str:
    return ascii(text[:100])[1:-1] + ("…" if len(text) > 100 else "")
