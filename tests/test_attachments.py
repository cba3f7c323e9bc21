"""Pictures and files in requests: recorded by content, kept, found again, never taken for another."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pictura import attachments
from pictura.attachments import attached, open_file, open_picture, recorded
from pictura.errors import ParameterError
from pictura.families import Option
from pictura.inputs import Model, complete
from pictura.request import Request


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PICTURA_CACHE", str(tmp_path / "cache"))
    attachments._hashed.cache_clear()
    return tmp_path / "cache"


def pixels(height=5, width=7):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "cat.png"
    Image.fromarray(pixels()).save(path)
    return path


def test_every_form_of_a_picture_is_recorded_and_found_again(file):
    given = [
        str(file),
        file,
        file.read_bytes(),
        Image.fromarray(pixels()),
        pixels(),
        pixels().astype(np.float32) / 255,
    ]
    for at, one in enumerate(given):
        record = recorded(one, "image")
        assert set(record) == ({"path", "sha256"} if at < 2 else {"sha256"})
        assert np.array_equal(np.asarray(open_picture(record, "image").convert("RGB")), pixels())
        assert recorded(record, "image") == record
    assert recorded(file, "image")["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_picture_that_moved_or_changed_is_still_the_recorded_one(file):
    record = recorded(file, "image")
    Image.new("RGB", (3, 3)).save(file)
    assert open_picture(record, "image").size == (7, 5)
    file.unlink()
    assert open_picture(record, "image").size == (7, 5)


def test_without_its_copy_only_the_same_file_will_do(file, cache):
    record = recorded(file, "image")
    for kept in cache.rglob(record["sha256"]):
        kept.unlink()
    assert open_picture(record, "image").size == (7, 5)
    Image.new("RGB", (3, 3)).save(file)
    with pytest.raises(ParameterError, match="another file"):
        open_picture(record, "image")
    file.unlink()
    with pytest.raises(ParameterError, match="not on this machine"):
        open_picture(record, "image")


def test_a_copy_that_was_tampered_with_is_not_used(file, cache):
    record = recorded(pixels(), "image")
    kept = next(cache.rglob(record["sha256"]))
    kept.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ParameterError, match="not on this machine"):
        open_picture(record, "image")


def test_files_are_found_by_content_where_they_were(tmp_path, monkeypatch):
    place = tmp_path / "style.safetensors"
    place.write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    record = recorded("style.safetensors", "lora", "file")
    assert record == {"path": "style.safetensors", "sha256": hashlib.sha256(b"weights").hexdigest()}
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert open_file(record, "lora") == place
    place.write_bytes(b"other weights")
    with pytest.raises(ParameterError, match="another file"):
        open_file(record, "lora")


def test_records_inside_lists_and_mappings(file):
    given = [{"kind": "canny", "path": str(file), "scale": 0.5}, {"kind": "depth", "picture": pixels()}]
    first, second = attached(given, "control", "picture")
    assert first == {"kind": "canny", "scale": 0.5, **recorded(file, "control")}
    assert second["kind"] == "depth" and set(second["picture"]) == {"sha256"}
    assert attached([first, second], "control", "picture") == [first, second]


def bomb():
    """A PNG of some hundred bytes that says it has 60000 x 60000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def truncated():
    buffer = io.BytesIO()
    Image.fromarray(pixels(90, 90)).save(buffer, "PNG")
    return buffer.getvalue()[:4000]


@pytest.mark.parametrize(
    "bad",
    [
        bomb(), truncated(), b"", b"no picture", b"%!PS-Adobe-3.0 EPSF-3.0", 7, None, [1, 2],
        np.zeros((2, 2, 7)), np.zeros((0, 4, 3), np.uint8), "no/such/file.png", "", "\0",
        {"sha256": "abc"}, {"sha256": "0" * 64}, {"path": "x", "more": 1}, {},
    ],
)  # fmt: skip
def test_whatever_is_no_sound_picture_is_a_parameter_error(bad, cache):
    with pytest.raises(ParameterError) as caught:
        recorded(bad, "image")
    assert caught.value.parameter == "image" and "image" in str(caught.value)
    assert not list(cache.rglob("*")), "nothing that was refused is kept"


def test_a_large_file_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(attachments, "MAX_BYTES", 100)
    path = tmp_path / "large.png"
    path.write_bytes(bytes(101))
    with pytest.raises(ParameterError, match="at most"):
        recorded(path, "image")


class Drawn:
    """As much of a family as completing a request needs."""

    name = "drawn"
    parameters = frozenset({"image", "control"})
    options = {
        "image": Option(name="image", type=dict, default=None, help="a picture", attach="picture"),
        "control": Option(name="control", type=list, default=None, help="pictures", attach="picture"),
    }

    def defaults(self):
        return {}

    def check(self, request):
        pass


def test_a_request_is_completed_with_what_it_names_and_replays(file):
    model = Model(name="drawn", family=Drawn(), defaults={})
    options = {"image": str(file), "control": [{"path": str(file), "kind": "canny"}]}
    done, ignored = complete(Request(prompt="a cat", seed=1, options=options), model)
    assert done.options["image"]["sha256"] == recorded(file, "image")["sha256"] and not ignored
    assert done.options["control"][0]["sha256"] == done.options["image"]["sha256"]
    again = Request.from_json(done.to_json())
    assert complete(again, model)[0] == done
    with pytest.raises(ParameterError, match="control is .*; give a list"):
        complete(Request(prompt="", options={"control": {"path": str(file)}}), model)
