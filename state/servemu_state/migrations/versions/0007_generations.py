"""How often a workspace was reset."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Adds workspaces.generation."""
    op.add_column(
        "workspaces", sa.Column("generation", sa.Integer, nullable=False, server_default="0")
    )
