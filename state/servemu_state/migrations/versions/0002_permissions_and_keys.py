"""Who may do what to an endpoint, and the keys that access tokens are signed with."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Creates permissions and signing_keys."""
    op.create_table(
        "permissions",
        sa.Column("endpoint_id", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("principal", sa.String(255), nullable=False),
        sa.Column("level", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("endpoint_id", "kind", "principal", name="pk_permissions"),
        sa.ForeignKeyConstraint(
            ["endpoint_id"],
            ["endpoints.id"],
            name="fk_permissions_endpoint_id",
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        "signing_keys",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("secret", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_signing_keys"),
    )
