"""Where ids and chance come from: fresh ones, or with `--seed` the same ones in every run."""

import hashlib
import random
import uuid
from collections import defaultdict


class Dice:
    """Draws by workspace and kind.

    With a seed a draw is a hash of (seed, workspace, kind, ordinal of the draw within both), so
    neither other workspaces nor other kinds can change it: put the subject into the kind
    (`traffic/llama`). Without one every draw is fresh. Belongs to the event loop.
    """

    def __init__(self, seed: int | None) -> None:
        self.seed = seed
        self._ordinals: dict[str, defaultdict[str, int]] = {}

    def hex(self, workspace: str, kind: str) -> str:
        """32 lower-case hex digits."""
        return uuid.uuid4().hex if self.seed is None else self._digest(workspace, kind).hex()

    def uuid(self, workspace: str, kind: str) -> str:
        """A version 4 UUID."""
        if self.seed is None:
            return str(uuid.uuid4())
        return str(uuid.UUID(bytes=self._digest(workspace, kind), version=4))

    def whole(self, workspace: str, kind: str) -> int:
        """At least 0, below 2**63: a seed for somebody else's generator."""
        if self.seed is None:
            return random.getrandbits(63)
        return int.from_bytes(self._digest(workspace, kind)) >> 65

    def number(self, workspace: str, kind: str) -> float:
        """In [0, 1)."""
        return (self.whole(workspace, kind) >> 10) / 2**53

    def forget(self, workspace: str) -> None:
        """The workspace starts again: so do its ordinals."""
        self._ordinals.pop(workspace, None)

    def ordinals(self, workspace: str) -> dict[str, int]:
        """How often each kind was drawn: what a snapshot keeps. Empty without a seed."""
        return dict(self._ordinals.get(workspace, {}))

    def go_on(self, workspace: str, ordinals: dict[str, int]) -> None:
        """Draw on from where `ordinals` were taken."""
        self._ordinals[workspace] = defaultdict(int, ordinals)

    def _digest(self, workspace: str, kind: str) -> bytes:
        ordinals = self._ordinals.setdefault(workspace, defaultdict(int))
        ordinal = ordinals[kind]
        ordinals[kind] = ordinal + 1
        text = f"{self.seed}\0{workspace}\0{kind}\0{ordinal}".encode()
        return hashlib.blake2b(text, digest_size=16).digest()
