"""MLflow's experiments, runs and logged models."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Creates tracked."""
    op.create_table(
        "tracked",
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("workspace", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("parent", sa.String(64), nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("position", name="pk_tracked"),
        sa.UniqueConstraint("workspace", "kind", "id", name="uq_tracked_workspace_kind_id"),
    )
