"""Pictures that wait in files of many: what is whole is found again, what was cut off is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pictura.batch import spool
from pictura.batch.spool import Spool


def everything(index: int) -> bool:
    return True


PICTURES = [((number, at), bytes([number]) * (50 + number)) for number in range(4) for at in (0, 1)]


def test_wherever_a_file_is_cut_off_the_pictures_before_are_whole(tmp_path: Path) -> None:
    first = Spool(tmp_path, everything)
    first.put_all(PICTURES)
    (path,) = tmp_path.glob("*.spool")
    whole = path.read_bytes()
    size = len(whole) // len(PICTURES)
    for cut in range(0, len(whole), 7):
        path.write_bytes(whole[:cut])
        found = Spool(tmp_path, everything)
        there = [key for key, data in PICTURES if found.get(key) == data]
        assert there == [key for key, _ in PICTURES[: len(there)]] and abs(len(there) - cut / size) < 2
        found.put_all([((9, 0), b"after")])  # never behind what was cut off
        again = Spool(tmp_path, everything)
        assert again.get((9, 0)) == b"after" and [k for k, d in PICTURES if again.get(k) == d] == there
        found.close()
        for other in set(tmp_path.glob("*.spool")) - {path}:
            other.unlink()
    path.write_bytes(whole[:60] + b"?" + whole[61:])  # a byte of a picture, as after a loss of power
    found = Spool(tmp_path, everything)
    assert [found.get(key) == data for key, data in PICTURES] == [False] + [True] * 7
    first.close()


def test_files_go_with_the_last_picture_that_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "LARGEST", 100)
    one = Spool(tmp_path, everything)
    for pair in PICTURES:
        one.put_all([pair])
    names = sorted(os.listdir(tmp_path))
    assert len(names) == 4  # two pictures each
    one.discard([(0, 0), (1, 1)])
    assert sorted(os.listdir(tmp_path)) == names
    one.discard([(0, 1)])
    assert sorted(os.listdir(tmp_path)) == names[1:]
    again = Spool(tmp_path, lambda index: index == 2)  # the others are in the outputs
    assert sorted(os.listdir(tmp_path)) == names[2:3]
    again.put_all([((2, 0), b"drawn once more")])
    assert again.get((2, 0)) == b"drawn once more" == Spool(tmp_path, everything).get((2, 0))
    one.close(), again.close()


def test_what_is_left_at_the_end_depends_on_the_pictures_alone(tmp_path: Path) -> None:
    left = []
    for name, order in (("a", PICTURES), ("b", PICTURES[::-1])):
        (tmp_path / name).mkdir()
        one = Spool(tmp_path / name, everything)
        for pair in order:
            one.put_all([pair])
            if name == "b":
                one.close()
        one.settle(lambda index: index in (1, 3))
        (path,) = (tmp_path / name).iterdir()
        left.append((path.name, path.read_bytes()))
        found = Spool(tmp_path / name, everything)
        assert [key for key, data in PICTURES if found.get(key) == data] == [(1, 0), (1, 1), (3, 0), (3, 1)]
        found.settle(lambda index: False)
        assert not list((tmp_path / name).iterdir())
    assert left[0] == left[1]
