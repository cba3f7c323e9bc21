"""Files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from pictura.errors import FileError
from pictura.picture.files import atomic


def test_a_file_appears_whole(tmp_path: Path) -> None:
    with atomic(tmp_path / "a") as file:
        file.write(b"one")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic(tmp_path / "a") as file:
        file.write(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"mine")
    with pytest.raises(FileError, match="exists already"), atomic(tmp_path / "a"):
        pass
    with pytest.raises(FileError, match="exists already"), atomic(tmp_path / "b") as file:
        file.write(b"slower")
        (tmp_path / "b").write_bytes(b"faster")
    assert (tmp_path / "a").read_bytes() == b"mine" and (tmp_path / "b").read_bytes() == b"faster"
    with atomic(tmp_path / "a", overwrite=True) as file:
        file.write(b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 2


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    with atomic(tmp_path / "a"):
        pass
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("name", ["missing/a", "file/a", "nul\0", "x" * 300])
def test_an_impossible_path_is_one_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError), atomic(tmp_path / name, overwrite=True):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
