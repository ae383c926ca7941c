"""Answers that are scripted for a workspace."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Creates replies."""
    op.create_table(
        "replies",
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("workspace", sa.String(255), nullable=False),
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("reply", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("used", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("position", name="pk_replies"),
        sa.UniqueConstraint("workspace", "id", name="uq_replies_workspace_id"),
    )
