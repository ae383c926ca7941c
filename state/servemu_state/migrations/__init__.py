"""The schema's history, and the way from an older revision to the head.

A new revision: change `models`, copy the newest file of `versions/` to `NNNN_what_it_does.py`, link
it by `down_revision`, set `HEAD`. Tests compare the chain with `models`. Alembic is imported only
when there is something to upgrade: it would be most of the start-up time.
"""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

HEAD = "0007"


@dataclass(frozen=True, slots=True)
class History:
    """The newest revision and the folder that holds Alembic's `env.py` and `versions/`."""

    head: str
    scripts: Path


HISTORY = History(HEAD, Path(__file__).parent)


def knows(history: History, revision: str) -> bool:
    """Whether `revision` is part of this history."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(history.scripts))
    return any(script.revision == revision for script in scripts.walk_revisions())


def upgrade(connection: Connection, history: History) -> None:
    """Brings the schema to the head, inside of the transaction that `connection` is in."""
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    # Alembic interpolates %(here)s in its options.
    config.set_main_option("script_location", str(history.scripts).replace("%", "%%"))
    command.upgrade(config, "head")
