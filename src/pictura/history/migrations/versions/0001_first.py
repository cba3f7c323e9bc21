"""Pictures, ratings, collections, jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def seq() -> sa.Column[int]:
    return sa.Column("seq", BIG, primary_key=True, autoincrement=True)


def upgrade() -> None:
    op.create_table(
        "jobs",
        seq(),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("body_sha256", sa.String(64), nullable=False),
        sa.Column("made_at", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String(9), nullable=False),
        sa.Column("cancelled", sa.Boolean, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.UniqueConstraint("owner", "idempotency_key", name="uq_jobs_owner_idempotency_key"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "tasks",
        seq(),
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("state", sa.String(9), nullable=False),
        sa.Column("worker", sa.Text),
        sa.Column("lease_until", sa.Float),
        sa.Column("lease_clock", sa.String(40)),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("error", sa.Text),
        sa.UniqueConstraint("job_id", "place", name="uq_tasks_job_id_place"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_tasks_state_seq", "tasks", ["state", "seq"])
    op.create_table(
        "events",
        seq(),
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_job_id_seq", "events", ["job_id", "seq"])
    op.create_table(
        "pictures",
        seq(),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        sa.Column("made_at", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("suffix", sa.String(5), nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id")),
        sa.Column("job_index", sa.Integer),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("negative_prompt", sa.Text),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("model_digest", sa.String(64)),
        sa.Column("seed", sa.BigInteger),
        sa.Column("num_steps", sa.Integer),
        sa.Column("guidance_scale", sa.Float),
        sa.Column("sampler", sa.Text),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("stars", sa.SmallInteger),
        sa.Column("note", sa.Text),
        sa.UniqueConstraint("job_id", "job_index", name="uq_pictures_job_id_job_index"),
        sqlite_autoincrement=True,
    )
    for columns in (["made_at"], ["sha256"], ["seed"], ["model", "seq"], ["stars", "seq"]):
        op.create_index(f"ix_pictures_{'_'.join(columns)}", "pictures", columns)
    op.create_table(
        "ratings",
        seq(),
        sa.Column("picture_id", sa.String(32), sa.ForeignKey("pictures.id"), nullable=False, index=True),
        sa.Column("stars", sa.SmallInteger),
        sa.Column("note", sa.Text),
        sa.Column("made_at", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "choices",
        seq(),
        sa.Column("winner_id", sa.String(32), sa.ForeignKey("pictures.id"), nullable=False, index=True),
        sa.Column("loser_id", sa.String(32), sa.ForeignKey("pictures.id"), nullable=False, index=True),
        sa.Column("made_at", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "collections",
        seq(),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("made_at", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "collected",
        sa.Column("collection_seq", BIG, sa.ForeignKey("collections.seq"), primary_key=True),
        sa.Column("picture_id", sa.String(32), sa.ForeignKey("pictures.id"), primary_key=True),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "ALTER TABLE pictures ADD COLUMN words tsvector GENERATED ALWAYS AS "
            "(to_tsvector('simple', prompt || ' ' || coalesce(negative_prompt, ''))) STORED"
        )
        op.execute("CREATE INDEX ix_pictures_words ON pictures USING gin (words)")
    else:
        # The words alone: FTS5 looks the texts up in `pictures`. Rows are never changed, so one trigger does.
        op.execute(
            "CREATE VIRTUAL TABLE pictures_words USING fts5"
            "(prompt, negative_prompt, content='pictures', content_rowid='seq', "
            'tokenize="unicode61 remove_diacritics 0")'
        )
        op.execute(
            "CREATE TRIGGER pictures_words_added AFTER INSERT ON pictures BEGIN "
            "INSERT INTO pictures_words(rowid, prompt, negative_prompt) "
            "VALUES (new.seq, new.prompt, new.negative_prompt); END"
        )


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER pictures_words_added")
        op.execute("DROP TABLE pictures_words")
    for table in ("collected", "collections", "choices", "ratings", "pictures", "events", "tasks", "jobs"):
        op.drop_table(table)
