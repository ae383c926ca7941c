"""The operations that a rule may name: globs, several of them with `|` between."""

from fnmatch import fnmatchcase
from functools import lru_cache

from servemu.operation import NAMES

OPERATIONS = tuple(sorted(NAMES))


@lru_cache(maxsize=4096)
def is_named(globs: str, operation: str) -> bool:
    return any(fnmatchcase(operation, glob) for glob in globs.split("|"))


def matching(globs: str) -> frozenset[str]:
    """Those that are named."""
    return frozenset(name for name in OPERATIONS if is_named(globs, name))


def unknown(globs: str) -> str | None:
    """The first glob that names nothing."""
    return next((glob for glob in globs.split("|") if not matching(glob)), None)
