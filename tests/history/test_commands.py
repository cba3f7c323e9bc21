"""`pictura history` on PostgreSQL, as on SQLite; and on a database that goes away."""

from __future__ import annotations

import json

import pytest

from pictura.cli.app import run


@pytest.fixture
def ask(url, history, capsys):
    """What a command prints, a JSON value a line."""
    place = [f"--folder={history.folder}", *([f"--database={url}"] if url else [])]

    def asked(*arguments, status=0, as_json=True):
        capsys.readouterr()
        assert run(["history", *arguments, *place, *["--json"] * as_json]) == status
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return asked


def test_every_command(ask, history, picture, tmp_path):
    first, second = history.add(picture("red cat", seed=1)), history.add(picture("red cat", seed=2))
    assert [row["id"] for row in ask("search", "cat", "--since", "1h")] == [second.id, first.id]
    assert ask("show", first.id[:12])[0]["request"]["seed"] == 1
    assert ask("rate", first.id, "--stars=4")[0]["stars"] == 4
    ask("choose", second.id, first.id)
    ask("collect", "best", first.id, as_json=False)
    assert ask("collections") == [{"name": "best", "count": 1}]
    assert ask("export", str(tmp_path / "out"), "--collection=best")[0]["count"] == 1
    assert ask("export", str(tmp_path / "pairs"), "--preferences")[0]["pairs"] == 1
    (stats,) = ask("stats")
    assert (stats["pictures"], stats["rated"], stats["choices"]) == (2, 1, 1)
    assert ask("check")[0]["sound"]
    ask("remove", first.id, "--yes", as_json=False)
    assert [row["id"] for row in ask("search", "red")] == [second.id] and ask("collections")[0]["count"] == 0


def test_ids_that_begin_alike_are_told_apart(ask, history, picture, monkeypatch):
    import itertools

    ids = iter([f"{digit:x}" * 4 + "0" * 27 + end for digit, end in itertools.product((1, 15), "1f")])
    monkeypatch.setattr("pictura.history.store.new_id", lambda: next(ids))
    made = [history.add(picture(seed=seed)).id for seed in range(4)]
    assert ask("show", "ffff", status=2) == []
    for id in made:
        assert ask("show", id)[0]["id"] == id
    assert ask("show", "2222", status=2) == []
