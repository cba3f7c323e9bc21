"""Jobs of a state and the collections of a picture are found without looking at all of them."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_jobs_owner_status_seq", "jobs", ["owner", "status", "seq"])
    op.create_index("ix_collected_picture_id", "collected", ["picture_id"])


def downgrade() -> None:
    op.drop_index("ix_collected_picture_id", "collected")
    op.drop_index("ix_jobs_owner_status_seq", "jobs")
