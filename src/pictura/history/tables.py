"""What the database holds. `seq` orders rows as they were committed, whatever the clocks say."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

# Named by rule, so that migrations can speak of them on every database.
METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
Big = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by an INTEGER only


def _seq() -> Column[int]:
    return Column("seq", Big, primary_key=True, autoincrement=True)


pictures = Table(
    "pictures",
    METADATA,
    _seq(),
    Column("id", String(32), nullable=False, unique=True),
    Column("made_at", BigInteger, nullable=False, index=True),  # microseconds since 1970, UTC
    Column("sha256", String(64), nullable=False, index=True),  # of the file in `blobs`
    Column("suffix", String(5), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("job_id", String(32), ForeignKey("jobs.id"), nullable=True),
    Column("job_index", Integer, nullable=True),
    Column("prompt", Text, nullable=False),
    Column("negative_prompt", Text, nullable=True),
    Column("model", Text, nullable=False),
    Column("model_digest", String(64), nullable=True),
    Column("seed", BigInteger, nullable=True),
    Column("num_steps", Integer, nullable=True),
    Column("guidance_scale", Float, nullable=True),
    Column("sampler", Text, nullable=True),
    Column("request", Text, nullable=False),  # JSON, whole
    Column("details", Text, nullable=False),  # JSON: version, notes, ignored, timings
    Column("stars", SmallInteger, nullable=True),  # the last of `ratings`, NULL where that withdrew them
    Column("note", Text, nullable=True),
    UniqueConstraint("job_id", "job_index"),  # however often it was made, it is there once
    Index("ix_pictures_model_seq", "model", "seq"),
    Index("ix_pictures_stars_seq", "stars", "seq"),
    Index("ix_pictures_seed", "seed"),
    sqlite_autoincrement=True,
)

ratings = Table(
    "ratings",
    METADATA,
    _seq(),
    Column("picture_id", String(32), ForeignKey("pictures.id"), nullable=False, index=True),
    Column("stars", SmallInteger, nullable=True),  # 0: they were withdrawn
    Column("note", Text, nullable=True),
    Column("made_at", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

choices = Table(
    "choices",
    METADATA,
    _seq(),
    Column("winner_id", String(32), ForeignKey("pictures.id"), nullable=False, index=True),
    Column("loser_id", String(32), ForeignKey("pictures.id"), nullable=False, index=True),
    Column("made_at", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

collections = Table(
    "collections",
    METADATA,
    _seq(),
    Column("name", Text, nullable=False, unique=True),
    Column("made_at", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

collected = Table(
    "collected",
    METADATA,
    Column("collection_seq", Big, ForeignKey("collections.seq"), primary_key=True),
    Column("picture_id", String(32), ForeignKey("pictures.id"), primary_key=True, index=True),
)

jobs = Table(
    "jobs",
    METADATA,
    _seq(),
    Column("id", String(32), nullable=False, unique=True),
    Column("owner", Text, nullable=False),  # whose key it was accepted with
    Column("idempotency_key", Text, nullable=True),
    Column("body_sha256", String(64), nullable=False),  # the same key with another body is a mistake
    Column("made_at", BigInteger, nullable=False),
    Column("status", String(9), nullable=False),  # queued, running, done, failed, cancelled
    Column("cancelled", Boolean, nullable=False),
    Column("total", Integer, nullable=False),
    Column("watched", Boolean, nullable=False, server_default=false()),  # somebody looks: previews are wanted
    UniqueConstraint("owner", "idempotency_key"),
    Index("ix_jobs_owner_seq", "owner", "seq"),
    Index("ix_jobs_owner_status_seq", "owner", "status", "seq"),
    sqlite_autoincrement=True,
)

tasks = Table(
    "tasks",
    METADATA,
    _seq(),
    Column("job_id", String(32), ForeignKey("jobs.id"), nullable=False),
    Column("place", Integer, nullable=False),
    Column("model", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("state", String(9), nullable=False),
    Column("worker", Text, nullable=True),
    Column("lease_until", Float, nullable=True),  # on the clock that `lease_clock` names
    Column("lease_clock", String(40), nullable=True),
    Column("fence", BigInteger, nullable=False),  # counts who had it; only the last may finish it
    Column("attempts", Integer, nullable=False),
    Column("error", Text, nullable=True),
    Column("step", Integer, nullable=True),  # how far it is; forgotten when it has ended
    Column("steps", Integer, nullable=True),
    Column("preview", LargeBinary, nullable=True),  # a PNG of what it looks like so far
    UniqueConstraint("job_id", "place"),
    Index("ix_tasks_state_seq", "state", "seq"),
    sqlite_autoincrement=True,
)

events = Table(
    "events",
    METADATA,
    _seq(),
    Column("job_id", String(32), ForeignKey("jobs.id"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("data", Text, nullable=False),
    Index("ix_events_job_id_seq", "job_id", "seq"),
    sqlite_autoincrement=True,
)

workers = Table(
    "workers",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("model", Text, nullable=False),
    Column("state", String(8), nullable=False),  # loading, ready, failed
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("beat", Float, nullable=False),  # on the clock that `clock` names, like leases
    Column("clock", String(40), nullable=False),
    Column("stats", Text, nullable=False),  # JSON: counts since its start
)

models = Table(
    "models",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("description", Text, nullable=False),  # JSON, as its worker told it when it was last loaded
)

calls = Table(
    "calls",  # that were not answered yet, or only just
    METADATA,
    Column("job_id", String(32), ForeignKey("jobs.id"), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("body_sha256", String(64), nullable=False, index=True),
    Column("attempts", Integer, nullable=False),  # how often it was made
    Column("made_at", BigInteger, nullable=False, index=True),
    Column("answered_at", BigInteger, nullable=True),
)
