"""The tables. JSON is kept as text: it is stored and given back unread (see `codec`)."""

from sqlalchemy import (
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

ACTIVE = "active"
PENDING = "pending"

# Names for every constraint, so that a later migration can drop one on any database.
metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

workspaces = Table(
    "workspaces",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("clock_offset", Double, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("generation", Integer, nullable=False, server_default="0"),
)

# No foreign key to workspaces: an endpoint may be written before its workspace has a row.
endpoints = Table(
    "endpoints",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("workspace", String(255), nullable=False),
    Column("name", String(255), nullable=False),
    Column("creator", String(255), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("config_update", String(32), nullable=False),
    Column("last_config_version", Integer, nullable=False),
    Column("tags", Text, nullable=False),
    Column("settings", Text, nullable=False),
    UniqueConstraint("workspace", "name"),
)

deployments = Table(
    "deployments",
    metadata,
    Column("endpoint_id", ForeignKey(endpoints.c.id, ondelete="CASCADE"), primary_key=True),
    Column("role", String(8), primary_key=True),
    Column("config_version", Integer, nullable=False),
    Column("entities", Text, nullable=False),
    Column("routes", Text, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("due_at", Double),
    Column("fault", Text),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("endpoint_id", ForeignKey(endpoints.c.id, ondelete="CASCADE"), nullable=False),
    Column("at", Double, nullable=False),
    Column("type", String(64), nullable=False),
    Column("status", String(64), nullable=False),
    Column("message", Text, nullable=False),
    Column("config_version", Integer),
    Index(None, "endpoint_id", "id"),
)

faults = Table(
    "faults",
    metadata,
    Column("position", Integer, primary_key=True),
    Column("workspace", String(255), nullable=False),
    Column("id", String(255), nullable=False),
    Column("rule", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("matched", Integer, nullable=False),
    Column("fired", Integer, nullable=False),
    Column("last_request_id", String(255)),
    UniqueConstraint("workspace", "id"),
)

replies = Table(
    "replies",
    metadata,
    Column("position", Integer, primary_key=True),
    Column("workspace", String(255), nullable=False),
    Column("id", String(255), nullable=False),
    Column("reply", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("used", Integer, nullable=False),
    UniqueConstraint("workspace", "id"),
)

permissions = Table(
    "permissions",
    metadata,
    Column("endpoint_id", ForeignKey(endpoints.c.id, ondelete="CASCADE"), primary_key=True),
    Column("kind", String(32), primary_key=True),
    Column("principal", String(255), primary_key=True),
    Column("level", String(32), nullable=False),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("secret", String(255), nullable=False),
)

registered_models = Table(
    "registered_models",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("workspace", String(255), nullable=False),
    Column("name", String(767), nullable=False),
    Column("owner", String(255), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("updated_by", String(255), nullable=False),
    Column("description", Text, nullable=False),
    Column("last_version", Integer, nullable=False),
    Column("aliases", Text, nullable=False),
    Column("tags", Text, nullable=False),
    UniqueConstraint("workspace", "name"),
)

model_versions = Table(
    "model_versions",
    metadata,
    Column("model_id", ForeignKey(registered_models.c.id, ondelete="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("status", String(32), nullable=False),
    Column("creator", String(255), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("updated_by", String(255), nullable=False),
    Column("description", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("run_id", String(255), nullable=False),
    Column("tags", Text, nullable=False),
    Column("details", Text, nullable=False),
)

tracked = Table(
    "tracked",
    metadata,
    Column("position", Integer, primary_key=True),
    Column("workspace", String(255), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("id", String(64), nullable=False),
    Column("parent", String(64), nullable=False),
    Column("document", Text, nullable=False),
    UniqueConstraint("workspace", "kind", "id"),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("workspace", String(255), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("document", Text, nullable=False),
)
