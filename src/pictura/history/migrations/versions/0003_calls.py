"""Calls that were not answered yet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "calls",
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("body_sha256", sa.String(64), nullable=False, index=True),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("made_at", sa.BigInteger, nullable=False, index=True),
        sa.Column("answered_at", sa.BigInteger),
    )


def downgrade() -> None:
    op.drop_table("calls")
