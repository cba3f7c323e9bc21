"""Pictures in the history: kept, found, rated, gathered; on SQLite and PostgreSQL alike."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import event, select

import pictura
from crowds import together
from pictura.errors import FileError, InputError, ParameterError
from pictura.history import History
from pictura.history.database import begin, migrate
from pictura.history.jobs import Jobs
from pictura.history.tables import METADATA, ratings
from pictura.request import Request


def prompts(page):
    return [entry.request.prompt for entry in page.entries]


def test_a_picture_comes_back_as_it_was(history, picture):
    made = picture("a cat", seed=2**63 - 1, negative_prompt="dogs", options={"eta": 0.5})
    entry = history.get(history.add(made).id)
    assert entry.request == made.request and entry.model_digest == made.model_digest
    np.testing.assert_array_equal(np.asarray(entry.picture()), np.asarray(made))
    assert entry.picture().request == made.request
    assert entry.size == (8, 6) and entry.stars is None


def test_another_process_finds_it(history, url, picture):
    entry = history.add(picture())
    with History(url, history.folder) as other:
        assert other.get(entry.id).request == entry.request


def test_the_same_picture_twice_is_two_entries_and_one_file(history, picture):
    first, second = history.add(picture()), history.add(picture())
    assert first.id != second.id and first.path == second.path and history.count() == 2
    assert len(list(history.blobs.folder.rglob("*.png"))) == 1


def test_a_damaged_file_is_noticed(history, picture):
    entry = history.add(picture())
    entry.path.write_bytes(entry.path.read_bytes()[:-1] + b"x")
    with pytest.raises(FileError, match="damaged"):
        history.blobs.get(entry.sha256, ".png")
    entry.path.unlink()
    with pytest.raises(FileError, match="missing"):
        history.blobs.get(entry.sha256, ".png")


@pytest.mark.parametrize(
    "words, expected",
    [
        ("cat", ["the CAT's dog", "a cat left of a pizza"]),
        ("pizza cat", ["a cat left of a pizza"]),
        ("pizz", ["a cat left of a pizza"]),
        ("pizz cat", []),  # only the last word may be a beginning
        ("käse", ["ein Käse mit 🚀"]),
        ("kase", []),
        ("blurry", ["a dog"]),  # of the negative prompt
        ('"cat OR', []),
        ("cat' & !dog | (", ["the CAT's dog"]),
        ("!!!", []),
        ("  ", ["ein Käse mit 🚀", "a dog", "the CAT's dog", "a cat left of a pizza"]),
        ("NEAR(cat dog)", []),
    ],
)
def test_words(history, picture, words, expected):
    for prompt in ("a cat left of a pizza", "the CAT's dog"):
        history.add(picture(prompt))
    history.add(picture("a dog", negative_prompt="blurry"))
    history.add(picture("ein Käse mit 🚀"))
    assert prompts(history.search(words)) == expected


def test_filters(history, picture):
    old = history.add(picture("one", seed=1))
    new = history.add(picture("two", seed=2, model="scenes", sampler="heun", num_steps=9, guidance_scale=1.5))
    history.rate(new.id, stars=4)
    for filters in (
        {"model": "scenes"},
        {"sampler": "heun"},
        {"seed": 2},
        {"num_steps": 9},
        {"guidance_scale": 1.5},
        {"min_stars": 4},
        {"rated": True},
        {"since": new.made_at},
        {"words": "two", "model": "scenes", "max_stars": 4},
    ):
        assert prompts(history.search(**filters)) == ["two"], filters
    assert prompts(history.search(rated=False)) == prompts(history.search(until=new.made_at)) == ["one"]
    assert prompts(history.search(size=(8, 6))) == ["two", "one"]
    assert prompts(history.search(size=(6, 8))) == prompts(history.search(min_stars=5)) == []
    assert old.made_at <= new.made_at
    with pytest.raises(ParameterError, match="filter 'modell'.*'model'"):
        history.search(modell="scenes")


def test_pages_give_each_picture_once_while_others_come(history, picture):
    for seed in range(7):
        history.add(picture(seed=seed))
    seen, cursor = [], None
    while True:
        page = history.search(limit=3, cursor=cursor)
        seen += [entry.request.seed for entry in page.entries]
        history.add(picture(seed=100 + len(seen)))
        if (cursor := page.next) is None:
            break
    assert seen == [6, 5, 4, 3, 2, 1, 0]
    assert len(list(history.walk())) == 10


@pytest.mark.parametrize(
    "cursor", ["", "x", "MQ==x", "LTE", "🚀", "A" * 5000, "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5"]
)
def test_a_wrong_cursor_is_refused(history, cursor):
    with pytest.raises(ParameterError, match="cursor"):
        history.search(cursor=cursor)


@pytest.mark.parametrize("limit", [0, -1, 501, True, "3", 1.5])
def test_a_wrong_limit_is_refused(history, limit):
    with pytest.raises(ParameterError, match="limit"):
        history.search(limit=limit)


def test_ratings(history, picture):
    entry = history.add(picture())
    assert history.rate(entry.id, stars=4).stars == 4
    rated = history.rate(entry.id, note="the ears!")
    assert (rated.stars, rated.note) == (4, "the ears!")
    assert history.rate(entry.id, stars=1).note == "the ears!"
    for wrong in (-1, 6, True, False, 2.5, "5"):
        with pytest.raises(ParameterError, match="stars"):
            history.rate(entry.id, stars=wrong)
    with pytest.raises(InputError, match="no picture"):
        history.rate("f" * 32, stars=3)


def test_stars_are_withdrawn_and_what_was_said_stays_recorded(history, picture):
    entry = history.add(picture())
    history.rate(entry.id, stars=4, note="the ears!")
    assert [found.id for found in history.search(rated=True).entries] == [entry.id]
    gone = history.rate(entry.id, stars=0)
    assert (gone.stars, gone.note) == (None, "the ears!") and history.get(entry.id).stars is None
    for filters in ({"rated": True}, {"min_stars": 1}, {"max_stars": 5}):
        assert history.search(**filters).entries == ()
    assert [found.id for found in history.search(rated=False).entries] == [entry.id]
    with begin(history.engine, reading=True) as connection:
        said = connection.execute(select(ratings.c.stars, ratings.c.note).order_by(ratings.c.seq)).all()
    assert [tuple(row) for row in said] == [(4, "the ears!"), (0, None)]
    assert history.rate(entry.id, stars=2).stars == 2


def test_choices(history, picture):
    a, b = history.add(picture(seed=1)), history.add(picture(seed=2))
    history.choose(b.id, a.id)
    history.choose(a.id, b.id)
    assert [(winner.id, loser.id) for winner, loser in history.preferences()] == [(b.id, a.id), (a.id, b.id)]
    with pytest.raises(ParameterError):
        history.choose(a.id, a.id)
    with pytest.raises(InputError):
        history.choose(a.id, "x")


def test_collections(history, picture):
    a, b = history.add(picture(seed=1)), history.add(picture(seed=2))
    history.collect("best", a.id, b.id)
    history.collect("best", a.id)
    history.collect("empty")
    assert history.collections() == {"best": 2, "empty": 0}
    history.collect("a first one", b.id)
    assert history.collections_of(a.id) == ("best",)
    assert history.collections_of(b.id) == ("a first one", "best")
    history.uncollect("a first one", b.id)
    history.uncollect("best", a.id)
    assert history.collections_of(a.id) == ()
    with pytest.raises(InputError, match="no picture"):
        history.collections_of("f" * 32)
    assert [entry.id for entry in history.search(collection="best").entries] == [b.id]
    with pytest.raises(ParameterError):
        history.collect("")
    with pytest.raises(InputError):
        history.collect("other", "nothing")
    assert "other" not in history.collections()  # nothing half done


def test_many_threads_write_at_once(history, picture):
    def work(base):
        for seed in range(5):
            entry = history.add(picture(seed=base + seed))
            history.collect("all", entry.id)

    together(work, range(0, 600, 100))
    assert history.count() == 30 and history.collections() == {"all": 30}


def test_a_current_history_opens_without_alembic_and_beside_a_writer(tmp_path):
    with History(None, tmp_path) as history:
        history.count()
    with sqlite3.connect(tmp_path / "history.sqlite", isolation_level=None) as writer:
        writer.execute("BEGIN IMMEDIATE")
        code = (
            "import sys; from pictura.history import History; "
            "print(History(None, sys.argv[1]).count(), 'alembic' in sys.modules)"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(pictura.__file__).parents[1])}
        command = [sys.executable, "-c", code, str(tmp_path)]
        out = subprocess.run(command, env=environment, check=True, capture_output=True, timeout=25).stdout
        assert out.split() == [b"0", b"False"]
    writer.close()


def test_migrations_up_and_down_with_data(history, picture):
    history.add(picture("before"))
    migrate(history.engine, "base")
    from sqlalchemy import inspect

    assert not set(inspect(history.engine).get_table_names()) & set(METADATA.tables)
    migrate(history.engine)
    history.add(picture("after"))
    assert prompts(history.search("after")) == ["after"] and history.count() == 1


def test_the_newest_schema_comes_and_goes_beside_data(history, picture):
    entry, job = history.add(picture("before")), Jobs(history).submit([Request(prompt="a dog", model="toy")])
    history.collect("best", entry.id)
    for revision, there in (("0003", False), ("0004", True), ("0003", False), ("head", True)):
        migrate(history.engine, revision)
        names = {name["name"] for table in ("jobs", "collected") for name in _indexes(history, table)}
        assert ({"ix_jobs_owner_status_seq", "ix_collected_picture_id"} <= names) is there
        assert "ix_jobs_owner_seq" in names
        assert history.collections_of(entry.id) == ("best",)
        assert [found.id for found in Jobs(history).newest(owner=job.owner, status="queued")] == [job.id]


def _indexes(history, table):
    from sqlalchemy import inspect

    return inspect(history.engine).get_indexes(table)


def test_what_is_looked_for_often_has_an_index(tmp_path, picture):
    with History(None, tmp_path) as history:
        jobs, entry, asked = Jobs(history), history.add(picture()), []
        event.listen(history.engine, "before_cursor_execute", lambda *said: asked.append(said[2:4]))
        jobs.newest(owner="me", status="queued")
        history.collections_of(entry.id)
        for words, expected in (
            ("status = ", "SEARCH jobs USING INDEX ix_jobs_owner_status_seq (owner=? AND status=?)"),
            ("collected", "SEARCH collected USING INDEX ix_collected_picture_id (picture_id=?)"),
        ):
            (one,) = [said for said in asked if words in said[0]]
            with history.engine.connect() as connection:
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {one[0]}", one[1]).all()
            assert plan[0].detail == expected and not any("SCAN" in row.detail for row in plan), plan


def test_the_migrations_make_the_tables_that_the_code_speaks_of(history):
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    with history.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": _ours})
        assert compare_metadata(context, METADATA) == []


def _ours(object, name, kind, reflected, compare_to):
    """Without the word index, which each database has in its own way."""
    return not (name or "").startswith(("pictures_words", "words", "ix_pictures_words"))


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://x/y", "sqlite://", "postgres"])
def test_a_url_that_is_none_is_refused(url, tmp_path):
    with pytest.raises(InputError, match="give sqlite"):
        History(url, tmp_path).count()


def test_a_server_that_is_not_there(tmp_path):
    from pictura.history.database import DatabaseError

    with pytest.raises(DatabaseError, match="not to be reached"):
        History(f"postgresql://nobody@/none?host={tmp_path}", tmp_path).count()


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "history.sqlite").write_bytes(b"no database at all, but long enough to be one" * 100)
    with pytest.raises((FileError, InputError)):
        History(None, tmp_path).count()
