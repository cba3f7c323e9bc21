"""Prompts from every kind of file; what cannot be read is told with file and line, and the rest goes on."""

from __future__ import annotations

import csv
import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pictura import Request, batch
from pictura.batch.covering import pairwise_rows
from pictura.batch.sources import open_source
from pictura.errors import FileError, InputError, ParameterError

ROWS: list[dict[str, Any]] = [
    {"prompt": "a cat", "seed": 5},
    {"prompt": "zwei Sterne ★", "num_steps": 7, "guidance_scale": 2.5},
    {"prompt": "a rocket", "negative_prompt": "a dog", "size": "64x32"},
]
REQUESTS = [Request(**row) for row in ROWS]


def write(folder: Path, kind: str) -> Any:
    """The three rows, as a file of this kind or an object."""
    path = folder / f"prompts.{kind}"
    names = ["id", "prompt", "seed", "num_steps", "guidance_scale", "negative_prompt", "size"]
    table = {name: [row.get(name) for row in ROWS] for name in names[1:]} | {"id": ["x", "y", "z"]}
    if kind == "jsonl":
        path.write_text("\n".join(json.dumps({"id": "x", **row}) for row in ROWS) + "\n\n")
    elif kind in ("csv", "tsv"):
        with open(path, "w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, names, delimiter="," if kind == "csv" else "\t")
            writer.writeheader()
            writer.writerows({"id": "x", **row} for row in ROWS)
    elif kind == "list":
        return [{"id": "x", **row} for row in ROWS]
    elif kind == "parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table(table), path, row_group_size=2)
    else:
        import datasets

        found = datasets.Dataset.from_dict(table)
        if kind == "dataset":
            return found
        found.save_to_disk(str(path))
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "list", "parquet", "dataset", "saved"])
def test_every_kind_gives_the_same_requests(kind: str, tmp_path: Path) -> None:
    source = open_source(write(tmp_path, kind))
    assert source.count() == 3
    assert [row.request for row in source.rows()] == REQUESTS
    assert [(row.number, row.request) for row in source.rows(2)] == [(2, REQUESTS[2])]
    assert open_source(write(tmp_path, kind) if kind != "saved" else tmp_path / "prompts.saved").digest == (
        source.digest
    )


def test_text_is_a_prompt_a_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"\xef\xbb\xbfa cat\r\n\n  two stars \n\xff\n" + b"x" * 3_000_000 + b"\nlast")
    source = open_source(path)
    assert source.count() == 5
    rows = list(source.rows())
    assert [row.request and row.request.prompt for row in rows] == ["a cat", "two stars", None, None, "last"]
    assert [row.place for row in rows] == [f"prompts.txt:{line}" for line in (1, 3, 4, 5, 6)]
    assert "not UTF-8" in (rows[2].problem or "")
    assert "longer than" in (rows[3].problem or "")


BAD_JSON = [
    (b'{"prompt": "ok"}', None),
    (b'{"text": "ok"}', None),
    (b'"ok"', None),
    (b'{"prompt": "x"', "not JSON"),
    (b'{"prompt": "\xff"}', "not UTF-8"),
    (b'{"title": "x"}', "there is no 'prompt' among 'title'"),
    (b'{"prompt": null}', "prompt is null"),
    (b'{"prompt": 7}', "prompt is 7"),
    (b'{"prompt": "x", "num_steps": 100000}', "num_steps is 100000; give a whole number 1..1000"),
    (b'{"prompt": "x", "size": [9, 1e9]}', "size is"),
    (b'{"prompt": "x", "seed": -1}', "seed is -1"),
    (b'{"prompt": "x", "guidance_scale": NaN}', "guidance_scale is nan"),
    (b"[1, 2]", "give a text or named values"),
    (b"[" * 100_000, "not JSON"),
    (b'{"prompt": "\\ud800"}', "surrogate"),
    (b'{"prompt": "x", "options": [1]}', "options is"),
    (b'{"prompt": "x", "seed": 1, "seed": 2}', "'seed' is there twice"),
]


def test_bad_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(line for line, _ in BAD_JSON))
    for number, (row, (line, problem)) in enumerate(zip(open_source(path).rows(), BAD_JSON, strict=True)):
        assert row.number == number and row.place == f"rows.jsonl:{number + 1}"
        if problem is None:
            assert row.request is not None and row.request.prompt == "ok", line
        else:
            assert row.request is None and problem in (row.problem or ""), (line, row.problem)


def test_bad_rows_of_csv(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(
        b'prompt,seed\n"a, b",1\nx\n,3\nx,many\n\xff,4\n"two\nlines",\n' + b"x" * 200_000 + b",1\nlast,2"
    )
    source = open_source(path)
    rows = list(source.rows())
    assert source.count() == len(rows) == 8
    told = [(row.place, row.request.prompt if row.request else row.problem) for row in rows]
    wanted = [
        ("rows.csv:2", "a, b"), ("rows.csv:3", "1 values for 2 columns"), ("rows.csv:4", "prompt is null"),
        ("rows.csv:5", "seed is 'many'"), ("rows.csv:6", "not UTF-8"), ("rows.csv:8", "two\nlines"),
        ("rows.csv:9", "200,000 characters"), ("rows.csv:10", "last"),
    ]  # fmt: skip
    for (place, text), (where, words) in zip(told, wanted, strict=True):
        assert place == where and words in (text or ""), (place, text)


def test_a_text_of_csv_without_end_hides_no_other_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'prompt,seed\nfirst,1\n"' + (b"x" * 999 + b"\n") * 10_000 + b'",2\nlast,3\n')
    first, second, last = open_source(path).rows()
    assert first.request and last.request and (last.request.prompt, last.place) == ("last", "rows.csv:10004")
    assert "10,000,000 characters" in (second.problem or "")


def test_a_mark_alone_is_a_blank_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf\n")
    assert open_source(tmp_path / "a.txt").count() == 0


def test_what_has_no_columns_or_splits_or_cannot_be_read_twice(tmp_path: Path) -> None:
    import datasets

    (tmp_path / "a.txt").write_text("a cat\n")
    with pytest.raises(ParameterError, match="has no columns; leave column out"):
        open_source(tmp_path / "a.txt", column="prompt")
    with pytest.raises(ParameterError, match="split is for data sets"):
        open_source(tmp_path / "a.txt", split="train")
    with pytest.raises(ParameterError, match="data set that streams"):
        open_source(datasets.Dataset.from_dict({"prompt": ["a"]}).to_iterable_dataset())
    with pytest.raises(FileError, match="cannot be read twice"):
        open_source(os.devnull)
    for other in ({"prompts": ["a"]}, iter("a"), {}):
        with pytest.raises(ParameterError, match="give a file, a list or a datasets.Dataset"):
            open_source(other)
    with pytest.raises(InputError, match="prompts holds no prompts"):
        batch.run([], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nulls_and_bad_text_in_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    texts = pa.array([b"fine", None, b"\xff\xfe", b"last"]).cast(pa.binary())
    raw = pa.Array.from_buffers(pa.string(), 4, texts.buffers())  # as a careless writer leaves it
    parquet.write_table(pa.table({"caption": raw, "seed": [1, 2, 3, None]}), tmp_path / "rows.parquet")
    rows = list(open_source(tmp_path / "rows.parquet").rows())
    assert [row.request and row.request.prompt for row in rows] == ["fine", None, None, "last"]
    assert "caption is null" in (rows[1].problem or "") and "not UTF-8" in (rows[2].problem or "")
    assert rows[2].place == "rows.parquet, row 2"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"title,seed\nx,1\n", "no column of prompts among 'title, seed'"),
        ("a.csv", b"", "no column of prompts"),
        ("a.csv", b"prompt,prompt\nx,y\n", "several columns 'prompt'"),
        ("a.parquet", b"PAR1 and nothing else", "no Parquet file"),
        ("a.toml", b"template = 3", "has no template"),
        ("a.toml", b"template = 'a {b}'", "variable 'b' has no values"),
        ("a.toml", b"template = 'a {b'", "braces do not match"),
        ("a.toml", b"template = 'a {b.c}'", "is no variable"),
        ("a.toml", b"template = 'a'\n[values]\nb = ['x']", "is not in the template"),
        ("a.toml", b"template = 'a {b}'\n[values]\nb = []", "a list of values"),
        ("a.toml", b"template = 'a'\ncover = 'some'", "choose one of: all, pairs"),
        ("a.toml", b"template = 'a'\n[parameters]\nnum_step = 3", "did you mean 'num_steps'?"),
        ("a.toml", b"template = ", "cannot be read"),
    ],
)
def test_a_file_of_which_nothing_can_be_read(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        source = open_source(tmp_path / name)
        source.count()
        list(source.rows())


def test_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no file 'nowhere.txt'"):
        open_source("nowhere.txt")
    with pytest.raises(FileError, match="no data set of datasets.save_to_disk"):
        open_source(tmp_path)
    with pytest.raises(FileError, match="not in the cache of datasets"):
        open_source("hf://datasets/nobody/has-this")
    with pytest.raises(InputError, match="hf://datasets/owner/name"):
        open_source("hf://models/x")
    with pytest.raises(ParameterError, match="prompts is 7"):
        open_source(7)
    with pytest.raises(InputError, match="has no column 'titel'; it has 'prompt, seed"):
        open_source(write(tmp_path, "parquet"), column="titel").count()


def test_a_split_is_chosen(tmp_path: Path) -> None:
    import datasets

    both = datasets.DatasetDict(
        {name: datasets.Dataset.from_dict({"text": [f"a {name} cat"]}) for name in ("train", "test")}
    )
    both.save_to_disk(str(tmp_path / "both"))
    rows = list(open_source(tmp_path / "both", split="test").rows())
    assert [row.request.prompt for row in rows if row.request] == ["a test cat"]
    with pytest.raises(InputError, match="several splits"):
        open_source(tmp_path / "both")
    with pytest.raises(InputError, match="did you mean 'train'"):
        open_source(tmp_path / "both", split="trian")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=0, max_size=7))
def test_every_pair_is_covered(sizes: list[int]) -> None:
    rows = pairwise_rows(sizes)
    assert rows == pairwise_rows(sizes)
    for (a, size_a), (b, size_b) in itertools.combinations(enumerate(sizes), 2):
        assert {(row[a], row[b]) for row in rows} == set(itertools.product(range(size_a), range(size_b)))
    largest = sorted(sizes)[-2:]
    # Never fewer than the pairs of the two largest, and far fewer than all combinations.
    least = largest[0] * largest[1] if len(largest) == 2 else sum(largest)
    assert least <= len(rows) <= max(least, 2.2 * least + 12)


def test_ten_variables_of_four_values_take_few_rows() -> None:
    assert len(pairwise_rows([4] * 10)) <= 36  # published tools take about 30; all would be 1,048,576


def test_a_template(tmp_path: Path) -> None:
    path = tmp_path / "scenes.toml"
    path.write_text(
        'template = "a {colour} {thing} {{x}}"\n[values]\ncolour = ["red", "blue"]\n'
        'thing = ["cat", "owl", "pig"]\n'
        "num_steps = [4, 12]\n[parameters]\nguidance_scale = 2.0\n"
    )
    source = open_source(path)
    requests = [row.request for row in source.rows()]
    assert source.count() == len(requests) == 6
    assert Request(prompt="a red cat {x}", num_steps=4, guidance_scale=2.0) in requests
    path.write_text('cover = "all"\n' + path.read_text())
    assert open_source(path).count() == 12
    assert len({row.request.to_json() for row in open_source(path).rows() if row.request}) == 12
