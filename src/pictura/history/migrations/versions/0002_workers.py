"""How far tasks are, who makes them, and what models can do."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("watched", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_index("ix_jobs_owner_seq", "jobs", ["owner", "seq"])
    for column in (
        sa.Column("step", sa.Integer),
        sa.Column("steps", sa.Integer),
        sa.Column("preview", sa.LargeBinary),
    ):
        op.add_column("tasks", column)
    op.create_table(
        "workers",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("beat", sa.Float, nullable=False),
        sa.Column("clock", sa.String(40), nullable=False),
        sa.Column("stats", sa.Text, nullable=False),
    )
    op.create_table(
        "models",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("description", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("models")
    op.drop_table("workers")
    for name in ("preview", "steps", "step"):
        op.drop_column("tasks", name)
    op.drop_index("ix_jobs_owner_seq", "jobs")
    op.drop_column("jobs", "watched")
