"""Weights on disk, against the reference implementation and against files that mean harm."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pictura.errors import CheckpointError, FileError, PicturaError
from pictura.formats import safetensors as ours
from pictura.formats import writing

TENSORS = {
    "b.weight": torch.linspace(-1, 1, 12).reshape(3, 4),
    "a.weight": torch.linspace(0, 3, 6).reshape(2, 3).bfloat16(),
    "é": torch.linspace(0, 3, 5).half(),
    "n": torch.arange(7),
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "empty": torch.zeros(0, 3),
    "mask": torch.tensor([True, False, True]),
    "bytes": torch.arange(9, dtype=torch.uint8),
    "tiny": torch.linspace(-2, 2, 5).to(torch.float8_e4m3fn),
}


def raw(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def one(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8), **more: Any) -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}}


def read(path: Path) -> dict[str, torch.Tensor]:
    entries = ours.header(path)
    found = {
        name: torch.empty(entry.shape, dtype=ours.torch_dtype(entry.dtype)) for name, entry in entries.items()
    }
    ours.fill(entries, found)
    return found


def test_the_bytes_are_those_of_the_reference_writer(tmp_path: Path) -> None:
    writing.write(tmp_path, TENSORS)
    written = (tmp_path / "model.safetensors").read_bytes()
    assert written == safetensors.torch.save(TENSORS, {"format": "pt"})
    assert writing.digest([tmp_path / "model.safetensors"]) == hashlib.sha256(written).hexdigest()
    assert writing.live_digest(TENSORS) == hashlib.sha256(written).hexdigest()


def test_reading_gives_what_the_reference_reader_gives(tmp_path: Path) -> None:
    safetensors.torch.save_file(TENSORS, tmp_path / "x.safetensors")
    found = read(tmp_path / "x.safetensors")
    expected = safetensors.torch.load_file(tmp_path / "x.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8)) if tensor.dim() else True
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
    assert found["scalar"] == 2.5


def test_stored_half_is_read_into_float32(tmp_path: Path) -> None:
    writing.write(tmp_path, {"w": TENSORS["a.weight"]})
    target = torch.empty(2, 3)
    ours.fill(ours.weights(tmp_path), {"w": target})
    assert torch.equal(target, TENSORS["a.weight"].float())


def test_shards(tmp_path: Path) -> None:
    writing.write(tmp_path, TENSORS, shard=60)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) > 3 and names[-1] == "model.safetensors.index.json"
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(TENSORS)
    merged: dict[str, torch.Tensor] = {}
    for name in names[:-1]:
        merged |= safetensors.torch.load_file(tmp_path / name)
    assert torch.equal(merged["b.weight"], TENSORS["b.weight"])
    entries = ours.weights(tmp_path)
    assert entries.keys() == TENSORS.keys()
    target = {"b.weight": torch.empty(3, 4)}
    ours.fill(entries, target)
    assert torch.equal(target["b.weight"], TENSORS["b.weight"])
    assert writing.digest(tmp_path / name for name in names[:-1]) == writing.live_digest(TENSORS, shard=60)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "too few"),
        (b"\x05\0\0", "too few"),
        (raw({})[:5], "too few"),
        ((2**62).to_bytes(8, "little") + b"{}", "too few"),
        (raw(b"{"), "not JSON"),
        (raw(b"\xff\xfe"), "not JSON"),
        (raw(b"[" * 100_000), "not JSON"),
        (raw([1]), "JSON object"),
        (raw(one(), b"1234567"), "the file at"),
        (raw(one(), b"123456789"), "the file at"),
        (raw(one(offsets=(4, 12)), b"1" * 12), "gap"),
        (raw(one(offsets=(8, 0)), b"1" * 8), "does not fill"),
        (raw(one(shape=(3,)), b"1" * 8), "does not fill"),
        (raw(one(shape=(2**40, 2**40)), b"1" * 8), "does not fill"),
        (raw(one(shape=(-1, -2)), b"1" * 8), "makes no sense"),
        (raw(one(shape=(True, 2)), b"1" * 8), "makes no sense"),
        (raw(one(shape=[1] * 65 + [2]), b"1" * 8), "makes no sense"),
        (raw(one(shape="2"), b"1" * 8), "makes no sense"),
        (raw(one(offsets=(0, 8, 9)), b"1" * 8), "makes no sense"),
        (raw(one(offsets=(0.0, 8.0)), b"1" * 8), "makes no sense"),
        (raw(one(more=1), b"1" * 8), "makes no sense"),
        (raw({"w": 3}, b"1" * 8), "makes no sense"),
        (raw(one(dtype="F33"), b"1" * 8), "unknown dtype 'F33'"),
        (raw(one(dtype=["F32"]), b"1" * 8), "unknown dtype"),
        (raw({**one(), "v": one()["w"]}, b"1" * 8), "overlaps"),
        (
            raw(json.dumps(one())[:-1].encode() + b"," + json.dumps(one())[1:].encode(), b"1" * 8),
            "comes twice",
        ),
        (pickle.dumps({"w": [1.0, 2.0]}), "pickle"),
        (b"PK\x03\x04 and so on, as torch.save writes it", "pickle"),
    ],
)
def test_unsound_files_are_one_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=said) as caught:
        ours.weights(tmp_path)
    assert "\n" not in str(caught.value) and "model.safetensors" in str(caught.value)


def test_an_oversized_header_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with open(path, "wb") as file:
        file.write((2**32).to_bytes(8, "little") + b"{")
        file.truncate(2**33)  # sparse: takes no room
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="header claims"):
        ours.header(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_gets_past_as_anything_but_our_error(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(safetensors.torch.save(TENSORS))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "model.safetensors"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        read(path)
    except PicturaError as error:
        assert "\n" not in str(error)


def test_a_file_that_shrinks_after_the_check_is_an_error(tmp_path: Path) -> None:
    writing.write(tmp_path, TENSORS)
    entries = ours.weights(tmp_path)
    os.truncate(tmp_path / "model.safetensors", entries["b.weight"].start + 4)
    with pytest.raises(CheckpointError, match="ends within tensor 'b.weight'"):
        ours.fill(entries, {"b.weight": torch.empty(3, 4)})


def test_check_names_the_first_tensor_that_does_not_fit(tmp_path: Path) -> None:
    writing.write(tmp_path, {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(4)})
    entries = ours.weights(tmp_path)
    ours.check(entries, shaped({"a": (2,), "b": (3,), "c": (4,)}))
    for wanted, said in [
        ({"a": (2,), "b": (4,), "c": (5,)}, r"tensor 'b' .* has shape \[3\], but needs \[4\]"),
        ({"a": (2,), "c": (4,)}, "tensor 'b' .* belongs to no part"),
        ({"a": (2,), "aa": (1,), "b": (3,), "c": (4,)}, "tensor 'aa' is missing"),
    ]:
        with pytest.raises(CheckpointError, match=said):
            ours.check(entries, shaped(wanted))


def shaped(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize("stored", [torch.int8, torch.uint8, torch.int64, torch.bool])
def test_whole_numbers_are_no_weights(tmp_path: Path, stored: torch.dtype) -> None:
    writing.write(tmp_path, {"a": torch.zeros(2, dtype=stored), "b": torch.zeros(2, dtype=torch.float16)})
    entries = ours.weights(tmp_path)
    whole, weight = torch.zeros(2, dtype=torch.int64), torch.zeros(2)
    ours.check(entries, {"a": whole, "b": weight})
    with pytest.raises(CheckpointError, match=r"'a' .* has dtype torch.*, but needs torch.float32"):
        ours.check(entries, {"a": weight, "b": weight})
    with pytest.raises(CheckpointError, match=r"'b' .* has dtype torch.float16, but needs torch.int64"):
        ours.check(entries, {"a": whole, "b": whole})


def test_links_may_not_leave_the_folder(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "repo" / "inside"
    outside.mkdir()
    inside.mkdir(parents=True)
    writing.write(outside, {"w": torch.zeros(2)})
    (inside / "model.safetensors").symlink_to(outside / "model.safetensors")
    with pytest.raises(CheckpointError, match="link that leaves"):
        ours.weights(inside)
    assert ours.weights(inside, root=tmp_path).keys() == {"w"}  # a hub's cache links within its repository
    (inside / "model.safetensors").unlink()
    (inside / "model.safetensors").symlink_to(inside / "model.safetensors")
    with pytest.raises(FileError, match="cannot be read"):
        ours.weights(inside)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make", [_pipe, Path.mkdir])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "model.safetensors")
    with pytest.raises(FileError):
        ours.weights(tmp_path)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"has no model\.safetensors"):
        ours.weights(tmp_path)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({}, "lists no weights"),
        ({"weight_map": {"w": 3}}, "lists no weights"),
        ({"weight_map": {"w": "../model.safetensors"}}, "points out of its folder"),
        ({"weight_map": {"w": "/etc/passwd"}}, "points out of its folder"),
        ({"weight_map": {"w": ".."}}, "points out of its folder"),
        ({"weight_map": {"v": "part.safetensors"}}, "does not list it"),
        ({"weight_map": {"w": "part.safetensors", "v": "part.safetensors"}}, "tensor 'v' is missing"),
    ],
)
def test_bad_indices(tmp_path: Path, index: object, said: str) -> None:
    (tmp_path / "part.safetensors").write_bytes(safetensors.torch.save({"w": torch.zeros(2)}))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=said):
        ours.weights(tmp_path)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(FileError, match="exists already"):
        writing.write(tmp_path, {"w": torch.zeros(2)})
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
