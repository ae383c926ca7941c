"""Bodies of the `/_emulator` switches."""

from pydantic import Field

from servemu.schemas.effects import Strict

YEARS_100 = 100 * 365 * 86400.0


class Advance(Strict):
    """How far to move the workspace's clock, in seconds."""

    seconds: float = Field(gt=0, le=YEARS_100)


class Pull(Strict):
    """A model for the store."""

    source: str = Field(min_length=1, max_length=4096)
    """A folder, a GGUF file, a hub id (`owner/model`) or a model that servemu knows."""
    name: str | None = None
    """None: its own."""
