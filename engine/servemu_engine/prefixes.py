"""Which slots begin like a prompt, without looking at all of them. No torch.

Beginnings are known by chained hashes: that of a block of tokens holds those of all blocks before.
"""

from collections.abc import Iterator

BLOCK = 16
"""Tokens. What is shared of a block that is not whole is found by comparing."""


def extend_keys(keys: list[int], tokens: list[int], count: int) -> None:
    """Bring `keys` up to the whole blocks among the first `count` tokens."""
    for begin in range(len(keys) * BLOCK, count - BLOCK + 1, BLOCK):
        before = keys[-1] if keys else 0
        keys.append(hash((before, *tokens[begin : begin + BLOCK])))


class Prefixes:
    """Places by the beginnings of their tokens."""

    def __init__(self) -> None:
        self._places: dict[int, set[int]] = {}
        self._keys: dict[int, list[int]] = {}

    def put(self, place: int, keys: list[int]) -> None:
        """What `place` holds from now on."""
        self.drop(place)
        self._keys[place] = keys.copy()
        for key in keys:
            self._places.setdefault(key, set()).add(place)

    def drop(self, place: int) -> None:
        """It holds nothing. Unknown: ignored."""
        for key in self._keys.pop(place, ()):
            places = self._places[key]
            places.discard(place)
            if not places:
                del self._places[key]

    def alike(self, keys: list[int]) -> Iterator[tuple[int, set[int]]]:
        """(blocks that are alike, the places that have no more in common), most blocks first.

        By hashes: whoever relies on it compares the tokens.
        """
        levels: list[set[int]] = []
        for key in keys:
            places = self._places.get(key)
            if places is None:
                break
            levels.append(places)
        deeper: set[int] = set()
        for depth in range(len(levels), 0, -1):
            places = levels[depth - 1]
            if len(places) > len(deeper):
                yield depth, places - deeper
                deeper = places
