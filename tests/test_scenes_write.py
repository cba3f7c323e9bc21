"""`datasets` and `webdataset` read what `scenes.write` stores, and a broken-off run is taken up again."""

from __future__ import annotations

import gc
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pictura.datasets.scenes.stream import example
from pictura.datasets.scenes.write import FORMATS, write
from pictura.errors import FileError, ParameterError


def finished(out: Path, **order: object) -> int:
    return list(write(out, **order))[-1]  # type: ignore[arg-type]


def as_stored(index: int, split: str) -> tuple[np.ndarray, str]:
    scene = example(index, split)
    return scene.image(), scene.prompt


@pytest.mark.parametrize("split", ["train", "held-out"])
@pytest.mark.parametrize("format", ["folder", "parquet"])
def test_datasets_loads_pictures_and_captions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, split: str
) -> None:
    datasets = pytest.importorskip("datasets")
    out = tmp_path / "scenes"
    assert finished(out, count=7, start=3, split=split, format=format, shard=4) == 7
    name = split.replace("-", "_")
    table = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert list(table) == [name]
    assert table[name].num_rows == 7
    assert isinstance(table[name].features["image"], datasets.Image)
    for offset, row in enumerate(table[name]):
        image, prompt = as_stored(3 + offset, split)
        np.testing.assert_array_equal(np.asarray(row["image"].convert("RGB")), image)
        assert row["text"] == prompt
        assert row["index"] == 3 + offset
        assert len(row["places"]) == row["number"] * len(row["objects"])


def test_imagefolder_loads_the_folder_by_name(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    out = tmp_path / "scenes"
    finished(out, count=3)
    table = datasets.load_dataset(
        "imagefolder", data_dir=str(out / "train"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert table["text"] == [example(i).prompt for i in range(3)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves its files open
def test_webdataset_streams_the_shards(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    out = tmp_path / "scenes"
    finished(out, count=5, format="webdataset", shard=2)
    shards = sorted(str(path) for path in out.glob("*.tar"))
    assert [Path(shard).name for shard in shards] == [f"train-{i:06d}.tar" for i in range(3)]
    rows = list(
        webdataset.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("png", "txt", "json")
    )
    assert len(rows) == 5
    for index, (image, text, facts) in enumerate(rows):
        np.testing.assert_array_equal(np.asarray(image), as_stored(index, "train")[0])
        assert text == facts["text"] == as_stored(index, "train")[1]
        assert facts["index"] == index
    del rows
    gc.collect()  # here, where its warnings are expected


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_order_gives_the_same_bytes(tmp_path: Path, format: str) -> None:
    for name in ("a", "b"):
        finished(tmp_path / name, count=4, format=format, shard=2)
    files = [sorted(p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*")) for n in "ab"]
    assert files[0] == files[1]
    for path in files[0]:
        if (tmp_path / "a" / path).is_file():
            assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


@pytest.mark.parametrize("format", FORMATS)
def test_a_broken_off_run_goes_on_where_it_stopped(tmp_path: Path, format: str) -> None:
    out, order = tmp_path / "scenes", {"count": 6, "format": format, "shard": 2}
    run = write(out, **order)  # type: ignore[arg-type]
    while next(run) < 4:
        pass
    next(run)
    run.close()
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("*0*") if path.is_file()}
    assert kept
    assert finished(out, **order) == 6
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # what was there was not made again
    assert not [path for path in out.rglob(".*") if path.name != ".scenes.json"]  # no partial file is left
    whole = tmp_path / "whole"
    finished(whole, **order)
    names = {p.relative_to(whole) for p in whole.rglob("*")}
    assert {p.relative_to(out) for p in out.rglob("*")} == names


def test_a_folder_of_other_things_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(FileError, match="not empty"):
        write(tmp_path, count=1)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_other_scenes_are_not_mixed_in(tmp_path: Path) -> None:
    finished(tmp_path, count=2)
    with pytest.raises(FileError, match="count 2"):
        write(tmp_path, count=3)


def test_a_file_in_the_way_is_a_file_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be written"):
        write(tmp_path / "file", count=1)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("count", 0),
        ("count", 1.5),
        ("count", True),
        ("start", -1),
        ("shard", 0),
        ("split", "test"),
        ("format", "zip"),
    ],
)
def test_a_bad_value_names_the_parameter_and_leaves_nothing(
    tmp_path: Path, parameter: str, value: object
) -> None:
    out = tmp_path / "scenes"
    with pytest.raises(ParameterError, match=parameter) as caught:
        write(out, **{"count": 1, parameter: value})  # type: ignore[arg-type]
    assert caught.value.parameter == parameter
    assert not out.exists()


def test_a_caption_of_the_folder_says_what_its_picture_shows(tmp_path: Path) -> None:
    finished(tmp_path, count=1, start=11)
    (line,) = (tmp_path / "train" / "metadata.jsonl").read_text().splitlines()
    facts = json.loads(line)
    image = Image.open(io.BytesIO((tmp_path / "train" / facts["file_name"]).read_bytes()))
    np.testing.assert_array_equal(np.asarray(image), as_stored(11, "train")[0])
