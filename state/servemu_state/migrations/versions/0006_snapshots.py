"""Named states of a workspace."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Creates snapshots."""
    op.create_table(
        "snapshots",
        sa.Column("workspace", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "name", name="pk_snapshots"),
    )
