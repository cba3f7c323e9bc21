"""Store numbered scenes where others can read them: a folder, Parquet files, or WebDataset shards.

    DIR/.scenes.json     what was asked for: a second run of the same order goes on where the first stopped
    DIR/README.md        data card; its header lets `datasets.load_dataset(DIR)` find the files and the split
    folder               DIR/SPLIT/00000000.png and DIR/SPLIT/metadata.jsonl, the layout of `imagefolder`
    parquet              DIR/SPLIT-00000-of-00002.parquet with an Image column
    webdataset           DIR/SPLIT-000000.tar holding 00000000.png, .txt and .json

Every file appears whole or not at all (written beside its place, then renamed), so a run can be killed at any
moment. A folder that holds anything else is never written to.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from tarfile import USTAR_FORMAT
from typing import Any

from PIL import Image

from pictura.errors import FileError, InputError, ParameterError, did_you_mean, shown
from pictura.picture.files import atomic

from .grammar import things
from .stream import SPLITS, Example, example

FORMATS = ("folder", "parquet", "webdataset")
MANIFEST = ".scenes.json"


def write(
    out: Path | str,
    *,
    count: int,
    start: int = 0,
    split: str = "train",
    format: str = "folder",
    shard: int = 1000,
) -> Iterator[int]:
    """Store scenes `start` to `start + count - 1` of `split` under `out`, and yield how many exist.

    `shard` is the number of scenes in a Parquet or tar file. What a broken-off run left is kept.
    Raises ParameterError for a value out of range and FileError if `out` holds something else; both at once,
    not at the first `next`.
    """
    for name, value, least in (("count", count, 1), ("start", start, 0), ("shard", shard, 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            message = f"{name} is {shown(value)}; give a whole number, {least} or more"
            raise ParameterError(message, parameter=name)
    for name, given, known in (("split", split, SPLITS), ("format", format, FORMATS)):
        if given not in known:
            message = f"{name} {shown(given)} is unknown; {did_you_mean(str(given), known)}"
            raise ParameterError(message, parameter=name)
    if format == "parquet":
        _pyarrow()
    order: dict[str, Any] = {"format": format, "split": split, "start": start, "count": count, "shard": shard}
    _claim(Path(out), order)
    return {"folder": _folder, "parquet": _parquet, "webdataset": _webdataset}[format](Path(out), **order)


def record(example: Example) -> dict[str, Any]:
    """What is known of a scene besides its pixels, as JSON values: its caption is "text"."""
    scene = example.scene
    return {
        "text": example.prompt,
        "index": example.index,
        "kind": scene.kind,
        "objects": [things()[o].singular for o in scene.objects],
        "number": scene.number,
        "relation": scene.relation,
        "background": scene.background,
        "places": [list(place) for place in scene.places],
    }


def png(example: Example) -> bytes:
    """The picture of a scene, encoded."""
    file = BytesIO()
    Image.fromarray(example.image()).save(file, "PNG")
    return file.getvalue()


def _folder(out: Path, *, split: str, start: int, count: int, **_: Any) -> Iterator[int]:
    folder = out / split
    folder.mkdir(exist_ok=True)
    lines = []
    for done, index in enumerate(range(start, start + count), 1):
        scene = example(index, split)
        name = f"{index:08d}.png"
        if not (folder / name).exists():
            _put(folder / name, png(scene))
        lines.append(json.dumps({"file_name": name} | record(scene)) + "\n")
        yield done
    _put(folder / "metadata.jsonl", "".join(lines).encode())


def _parquet(out: Path, *, split: str, start: int, count: int, shard: int, **_: Any) -> Iterator[int]:
    files = -(-count // shard)

    def name(number: int) -> str:
        return f"{split}-{number:05d}-of-{files:05d}.parquet"

    yield from _shards(out, name, _put_table, split, start, count, shard)


def _webdataset(out: Path, *, split: str, start: int, count: int, shard: int, **_: Any) -> Iterator[int]:
    def name(number: int) -> str:
        return f"{split}-{number:06d}.tar"

    yield from _shards(out, name, _put_tar, split, start, count, shard)


def _shards(
    out: Path,
    name: Callable[[int], str],
    put: Callable[[Path, Sequence[Example]], None],
    split: str,
    start: int,
    count: int,
    shard: int,
) -> Iterator[int]:
    for number, first in enumerate(range(0, count, shard)):
        last = min(first + shard, count)
        path = out / name(number)
        if not path.exists():
            scenes = []
            for index in range(first, last):
                scenes.append(example(start + index, split))
                yield index
            put(path, scenes)
        yield last


def _put_table(path: Path, scenes: Sequence[Example]) -> None:
    """One Parquet file; its schema tells `datasets` that the column "image" holds encoded pictures."""
    pa, parquet = _pyarrow()
    rows = [{"image": {"bytes": png(s), "path": f"{s.index:08d}.png"}} | record(s) for s in scenes]
    text, whole = pa.string(), pa.int64()
    columns = {
        "image": pa.struct({"bytes": pa.binary(), "path": text}),
        "text": text,
        "index": whole,
        "kind": text,
        "objects": pa.list_(text),
        "number": whole,
        "relation": text,
        "background": text,
        "places": pa.list_(pa.list_(whole)),
    }

    def value(dtype: str) -> dict[str, Any]:
        return {"dtype": dtype, "_type": "Value"}

    def many(feature: dict[str, Any]) -> dict[str, Any]:
        return {"feature": feature, "_type": "List"}

    features = {name: value("int64" if kind == whole else "string") for name, kind in columns.items()}
    features["image"] = {"_type": "Image"}
    features["objects"] = many(value("string"))
    features["places"] = many(many(value("int64")))
    note = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.Table.from_pylist(rows, schema=pa.schema(list(columns.items()), metadata=note))
    with atomic(path, overwrite=True) as file:
        parquet.write_table(table, file)


def _put_tar(path: Path, scenes: Sequence[Example]) -> None:
    """One shard; the same scenes always give the same bytes."""
    with atomic(path, overwrite=True) as file, tarfile.open(None, "w", file, format=USTAR_FORMAT) as tar:
        for scene in scenes:
            parts = {
                "png": png(scene),
                "txt": scene.prompt.encode(),
                "json": json.dumps(record(scene)).encode(),
            }
            for kind, data in parts.items():
                entry = tarfile.TarInfo(f"{scene.index:08d}.{kind}")
                entry.size = len(data)
                tar.addfile(entry, BytesIO(data))


def _claim(out: Path, order: dict[str, Any]) -> None:
    """Make `out` ours: new or empty, or begun by the same order."""
    manifest = out / MANIFEST
    try:
        out.mkdir(parents=True, exist_ok=True)
        if manifest.exists():
            before = json.loads(manifest.read_text())
            if before != order:
                told = ", ".join(f"{key} {value}" for key, value in before.items())
                raise FileError(f"{out} already holds other scenes ({told}); choose another folder")
            return
        if any(out.iterdir()):
            raise FileError(f"{out} is not empty; choose a new or an empty folder")
        _put(out / "README.md", _card(order).encode())
        _put(manifest, json.dumps(order).encode())
    except OSError as error:
        raise FileError(f"{out} cannot be written to: {error.strerror or error}") from error


def _card(order: dict[str, Any]) -> str:
    split, last = order["split"], order["start"] + order["count"] - 1
    files = {"folder": f"{split}/*", "parquet": f"{split}-*.parquet", "webdataset": f"{split}-*.tar"}
    return f"""---
configs:
- config_name: default
  data_files:
  - split: {split.replace("-", "_")}
    path: "{files[order["format"]]}"
---
# Emoji scenes, split {split}, numbers {order["start"]} to {last}

Pictures of 128x128 pixels with one to four objects on a plain background, each with a caption ("text") and
the scene it was drawn from. Made by `pictura data scenes`; the same numbers give the same scenes everywhere.

The objects are glyphs of Noto Color Emoji, copyright Google, under the SIL Open Font License 1.1. The licence
covers the font; pictures drawn with it may be used freely.
"""


def _put(path: Path, data: bytes) -> None:
    with atomic(path, overwrite=True) as file:
        file.write(data)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        message = "format 'parquet' needs pyarrow; install it with: pip install 'pictura[data]'"
        raise InputError(message) from error
    return pyarrow, pyarrow.parquet
