"""How a picture was made travels inside its file, and hostile files are one error."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from pictura.errors import FileError
from pictura.picture import Picture, Pictures, file_name, read_metadata
from pictura.request import MAX_SEED, Request

SUFFIXES = [".png", ".jpg", ".jpeg", ".webp"]
anything = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
in_a_folder = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def make(request: Request, **more: object) -> Picture:
    pixels = np.random.default_rng(0).integers(0, 255, (9, 7, 3), np.uint8)
    return Picture(image=Image.fromarray(pixels), request=request, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(prompt=anything, negative=st.none() | anything, seed=st.integers(0, MAX_SEED), scale=st.floats(-9, 99))
@in_a_folder
def test_any_request_comes_back(
    tmp_path: Path, suffix: str, prompt: str, negative: str | None, seed: int, scale: float
) -> None:
    request = Request(
        prompt=prompt,
        negative_prompt=negative,
        seed=seed,
        guidance_scale=scale,
        size=(7, 9),
        num_steps=3,
        options={"eta": 0.5, "deep": [prompt, {"Steps": None}], "Steps": 7},
    )
    made = make(request, model_digest="ab" * 32, notes=(prompt,), ignored=("eta",), timings={"s": 1.0})
    again = Picture.open(made.save(tmp_path / f"a{suffix}", overwrite=True))
    assert again.request == request and again.request.digest() == request.digest()
    assert (again.model_digest, again.version) == (made.model_digest, made.version)
    assert (again.notes, again.ignored) == (made.notes, made.ignored)
    if suffix in (".png", ".webp"):
        assert np.array_equal(np.asarray(again), np.asarray(made))
        assert again.to_bytes(suffix) == made.to_bytes(suffix)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_longest_prompts(tmp_path: Path, suffix: str) -> None:
    longest = Request(prompt="\U0001f680" * 10_000, seed=0)
    assert Picture.open(make(longest).save(tmp_path / f"a{suffix}")).request == longest
    two = make(Request(prompt="\U0001f680" * 10_000, negative_prompt="\U0001f680" * 10_000))
    if suffix.startswith(".jp"):
        with pytest.raises(FileError, match="too long"):
            two.save(tmp_path / f"b{suffix}")
    else:
        assert Picture.open(two.save(tmp_path / f"b{suffix}")).request == two.request


def test_other_tools_read_the_parameters(tmp_path: Path) -> None:
    request = Request(
        prompt="a cat",
        negative_prompt="blurry",
        seed=5,
        num_steps=20,
        sampler="dpmpp_2m",
        schedule="karras",
        guidance_scale=7.5,
        size=(512, 256),
        model="scenes",
    )
    made = make(request, model_digest="0123456789abcdef", version="9.9")
    text = (
        "a cat\nNegative prompt: blurry\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, "
        "CFG scale: 7.5, Seed: 5, Size: 512x256, Model hash: 0123456789, Model: scenes, Version: pictura 9.9"
    )
    made.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.text["parameters"] == text  # type: ignore[attr-defined]
    for suffix in (".jpg", ".webp"):
        with Image.open(made.save(tmp_path / f"a{suffix}")) as image:
            comment = image.getexif().get_ifd(0x8769)[0x9286]
        assert comment == b"UNICODE\0" + text.encode("utf-16-be")


FOREIGN = (
    "masterpiece, (a cat:1.2)\nsecond line\nNegative prompt: dog, bad\nhands\nSteps: 28, Sampler: Euler a, "
)
FOREIGN += (
    'CFG scale: 7, Seed: 42, Size: 768x512, Model hash: 31e35c80fc, Model: sd_xl, Lora hashes: "a: 1, b: 2"'
)


def foreign(path: Path, text: str, kind: str) -> Path:
    image = Image.new("RGB", (4, 4))
    if kind in ("tEXt", "zTXt", "iTXt"):
        info = PngImagePlugin.PngInfo()
        (info.add_itxt if kind == "iTXt" else info.add_text)("parameters", text, zip=kind == "zTXt")
        image.save(path, "PNG", pnginfo=info)
    else:
        encoded = {"be": "utf-16-be", "le": "utf-16-le"}.get(kind)
        exif = Image.Exif()
        comment = b"UNICODE\0" + text.encode(encoded) if encoded else b"ASCII\0\0\0" + text.encode()
        exif.get_ifd(0x8769)[0x9286] = comment
        image.save(path, "JPEG", exif=exif)
    return path


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "be", "le", "ascii"])
def test_files_by_other_tools(tmp_path: Path, kind: str) -> None:
    found = read_metadata(foreign(tmp_path / "a", FOREIGN, kind))
    assert found.source == "parameters" and found.parameters == FOREIGN
    assert found.settings["Lora hashes"] == "a: 1, b: 2" and found.model_digest == "31e35c80fc"
    assert found.request == Request(
        prompt="masterpiece, (a cat:1.2)\nsecond line",
        negative_prompt="dog, bad\nhands",
        num_steps=28,
        sampler="euler_ancestral",
        guidance_scale=7.0,
        seed=42,
        size=(768, 512),
        model="sd_xl",
    )
    assert found.notes == ()


SETTINGS = {
    "Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7": {
        "num_steps": 20,
        "sampler": "dpmpp_2m",
        "schedule": "karras",
    },
    "Steps: 20, Sampler: DPM++ 2M, Schedule type: Automatic": {"sampler": "dpmpp_2m", "schedule": None},
    "Steps: 4, Sampler: DPM adaptive, Seed: -1": {"sampler": "dpm_adaptive", "seed": None},
    'Steps: 4, Seed: 1, Civitai resources: [{"a": [1, 2]}, {}], Size: 8x8': {"seed": 1, "size": (8, 8)},
    "Steps: 4, Seed: 1, Broken: [1, Size: 8x8": {"seed": 1, "size": (8, 8)},
    "Steps: 4, Seed: 1, Size: 8x8,": {"num_steps": 4, "size": (8, 8)},
    "Steps: many, Seed: 1.5, Size: 0x8": {"num_steps": None, "seed": None, "size": None},
    "just: two, pairs: here": {"prompt": "just: two, pairs: here"},
    "only words": {"prompt": "only words"},
    "": {"prompt": ""},
}


@pytest.mark.parametrize("text", SETTINGS)
def test_settings_as_found_in_the_wild(tmp_path: Path, text: str) -> None:
    found = read_metadata(foreign(tmp_path / "a", text, "tEXt"))
    assert found.request is not None
    assert {name: getattr(found.request, name) for name in SETTINGS[text]} == SETTINGS[text]
    assert len(found.notes) == (3 if "many" in text else 0)


def test_a_plain_picture_says_nothing(tmp_path: Path) -> None:
    Image.new("RGB", (5, 4)).save(tmp_path / "a.png")
    found = read_metadata(tmp_path / "a.png")
    assert (found.source, found.request, found.size) == ("none", None, (5, 4))
    with pytest.raises(FileError, match="does not say"):
        Picture.open(tmp_path / "a.png")


@pytest.mark.parametrize("rewrite", [('="', "='", '"/>', "'/>"), None])
def test_xmp_that_another_tool_rewrote(tmp_path: Path, rewrite: tuple[str, ...] | None) -> None:
    made = make(Request(prompt="a < b & \"c\" 'd' \uffff", seed=1))
    with Image.open(made.save(tmp_path / "a.webp")) as image:
        packet = image.info["xmp"].decode()
        value = packet.split("pictura:metadata=", 1)[1].rsplit("/></rdf:RDF>", 1)[0]
        if rewrite:
            new = "'" + value[1:-1].replace("'", "&apos;") + "'"
            packet = packet.replace(value, new)
        else:
            packet = packet.replace(
                f" pictura:metadata={value}/>",
                f"><pictura:metadata>{value[1:-1]}</pictura:metadata></rdf:Description>",
            )
        image.save(tmp_path / "b.webp", xmp=packet.encode(), lossless=True)
    assert read_metadata(tmp_path / "b.webp").request == made.request


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(data=st.data())
@in_a_folder
def test_damage_is_one_error_or_nothing(tmp_path: Path, suffix: str, data: st.DataObject) -> None:
    whole = bytearray(make(Request(prompt="a cat", seed=1)).to_bytes(suffix))
    if data.draw(st.booleans()):
        # PIL reads a file that lacks two checksums and the end chunk: everything said is there.
        whole = whole[: data.draw(st.integers(0, len(whole) - 21))]
        must_fail = suffix == ".png"
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        must_fail = False
    (tmp_path / "a").write_bytes(whole)
    try:
        read_metadata(tmp_path / "a")
        assert not must_fail
    except FileError as error:
        assert "\n" not in str(error) and len(str(error)) < 400


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(*chunks: bytes, size: tuple[int, int] = (1, 1)) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0\0\0\0"))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def own(text: str | bytes) -> bytes:
    return png(chunk(b"iTXt", b"pictura\0\0\0\0\0" + (text.encode() if isinstance(text, str) else text)))


good = {"request": {"prompt": "a cat"}}
HOSTILE = {
    "empty": b"",
    "text": b"hello",
    "pickle": b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00.",
    "gif": b"GIF89a\x01\x00\x01\x00\x00\x00\x00;",
    "huge size": png(size=(2**31 - 1, 2**31 - 1)),
    "wide": png(size=(100_000, 1)),
    "bomb in iTXt": png(chunk(b"iTXt", b"pictura\0\1\0\0\0" + zlib.compress(b" " * 50_000_000))),
    "bomb in zTXt": png(chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b" " * 50_000_000))),
    "long text": png(chunk(b"tEXt", b"parameters\0" + b"x" * 2_000_000)),
    "long prompt": png(chunk(b"tEXt", b"parameters\0" + b"x" * 20_000)),
    "not json": own("{"),
    "deep json": own("[" * 100_000),
    "list": own("[]"),
    "no request": own("{}"),
    "request is a text": own('{"request": "a cat"}'),
    "no prompt": own('{"request": {}}'),
    "unknown field": own('{"request": {"prompt": "", "sead": 1}}'),
    "seed": own('{"request": {"prompt": "", "seed": -1}}'),
    "nan": own('{"request": {"prompt": "", "guidance_scale": NaN}}'),
    "options": own('{"request": {"prompt": "", "options": 3}}'),
    "surrogate": own('{"request": {"prompt": "\\ud800"}}'),
    "digits": own('{"request": {"prompt": "", "seed": ' + "9" * 10_000 + "}}"),
    "notes": own(json.dumps({**good, "notes": "text"})),
    "digest": own(json.dumps({**good, "model_digest": 3})),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(HOSTILE[name])
    for read in (read_metadata, Picture.open):
        with pytest.raises(FileError) as caught:
            read(path)
        message = str(caught.value)
        assert "a.png" in message and "\n" not in message and len(message) < 600


def test_what_is_no_file_is_one_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing.png", ".", "pipe", "nul\0.png", "/dev/zero"):
        with pytest.raises(FileError, match="there is no file"):
            read_metadata(tmp_path / name)


def test_saving_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    made = make(Request(prompt="a cat", seed=1))
    for name in ("a", "a.gif", "a.PNGG"):
        with pytest.raises(FileError, match="cannot be saved"):
            made.save(tmp_path / name)
    with pytest.raises(FileError, match="no folder"):
        made.save(tmp_path / "missing" / "a.png")
    made.save(tmp_path / "a.PNG")
    with pytest.raises(FileError, match="exists already"):
        made.save(tmp_path / "a.PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["a.PNG"]


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    cat, rocket = make(Request(prompt="A cat,  left!", seed=1)), make(Request(prompt="\U0001f680", seed=2))
    paths = Pictures([cat, cat, rocket, cat]).save(tmp_path / "new" / "folder")
    assert [path.name for path in paths] == [
        "a-cat-left-1.png",
        "a-cat-left-1~2.png",
        "picture-2.png",
        "a-cat-left-1~3.png",
    ]
    assert [Picture.open(path).request for path in paths] == [p.request for p in (cat, cat, rocket, cat)]
    with pytest.raises(FileError):
        Pictures([cat]).save(tmp_path / "new" / "folder")


@given(prompt=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=300))
@in_a_folder
def test_any_prompt_names_a_file(tmp_path: Path, prompt: str) -> None:
    name = file_name(make(Request(prompt=prompt, seed=MAX_SEED)))
    (tmp_path / name).write_bytes(b"")
    assert (tmp_path / name).parent == tmp_path and not name.startswith((".", "-"))


def test_to_bytes_is_the_file(tmp_path: Path) -> None:
    made = make(Request(prompt="a cat", seed=1))
    assert made.save(tmp_path / "a.png").read_bytes() == made.to_bytes()
    assert Image.open(io.BytesIO(made.to_bytes(".webp"))).format == "WEBP"
