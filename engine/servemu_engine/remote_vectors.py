"""Vectors of another model in the dimension and norm of the played one. No numpy."""

import math
from collections.abc import Sequence
from functools import lru_cache
from random import Random

from servemu_engine.synthetic_text import unit

_REFLECTIONS = 4
"""Enough to spread every value over all places."""


def fitted(vector: Sequence[float], dimensions: int | None, normalize: bool) -> list[float]:
    """`vector` with `dimensions` values (None: its own), of length 1 if `normalize`.

    Longer: zeros are added and the whole is reflected at fixed random planes, which keeps every
    distance. Shorter: so reflected, its first values, scaled; distances are kept on average.
    """
    values = list(vector)
    wanted = dimensions or len(values)
    if wanted != len(values):
        width = max(wanted, len(values))
        scale = math.sqrt(max(1.0, len(values) / wanted))
        spread = _reflected(values + [0.0] * (width - len(values)))
        values = [value * scale for value in spread[:wanted]]
    return unit(values) if normalize and any(values) else values


def _reflected(values: list[float]) -> list[float]:
    for plane in _planes(len(values)):
        twice = 2 * sum(map(float.__mul__, map(float, values), plane))
        values = [value - twice * along for value, along in zip(values, plane, strict=True)]
    return values


@lru_cache(maxsize=8)
def _planes(width: int) -> tuple[list[float], ...]:
    rng = Random(width)
    return tuple(unit([rng.gauss(0, 1) for _ in range(width)]) for _ in range(_REFLECTIONS))
