"""The first tables. Written out, not taken from `models`: a revision never changes."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates workspaces, endpoints, deployments, events and faults."""
    _create_workspaces()
    _create_endpoints()
    _create_deployments()
    _create_events()
    _create_faults()


def _create_workspaces() -> None:
    op.create_table(
        "workspaces",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("clock_offset", sa.Double, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_workspaces"),
    )


def _create_endpoints() -> None:
    op.create_table(
        "endpoints",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("workspace", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("creator", sa.String(255), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("config_update", sa.String(32), nullable=False),
        sa.Column("last_config_version", sa.Integer, nullable=False),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_endpoints"),
        sa.UniqueConstraint("workspace", "name", name="uq_endpoints_workspace_name"),
    )


def _create_deployments() -> None:
    op.create_table(
        "deployments",
        sa.Column("endpoint_id", sa.String(32), nullable=False),
        sa.Column("role", sa.String(8), nullable=False),
        sa.Column("config_version", sa.Integer, nullable=False),
        sa.Column("entities", sa.Text, nullable=False),
        sa.Column("routes", sa.Text, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("stage", sa.Integer, nullable=False),
        sa.Column("due_at", sa.Double),
        sa.Column("fault", sa.Text),
        sa.PrimaryKeyConstraint("endpoint_id", "role", name="pk_deployments"),
        _of_endpoint("deployments"),
    )


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("endpoint_id", sa.String(32), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("status", sa.String(64), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("config_version", sa.Integer),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        _of_endpoint("events"),
    )
    op.create_index("ix_events_endpoint_id_id", "events", ["endpoint_id", "id"])


def _create_faults() -> None:
    op.create_table(
        "faults",
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("workspace", sa.String(255), nullable=False),
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("matched", sa.Integer, nullable=False),
        sa.Column("fired", sa.Integer, nullable=False),
        sa.Column("last_request_id", sa.String(255)),
        sa.PrimaryKeyConstraint("position", name="pk_faults"),
        sa.UniqueConstraint("workspace", "id", name="uq_faults_workspace_id"),
    )


def _of_endpoint(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["endpoint_id"], ["endpoints.id"], name=f"fk_{table}_endpoint_id", ondelete="CASCADE"
    )
