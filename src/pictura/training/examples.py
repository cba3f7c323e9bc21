"""Captioned pictures for `fit`, whatever they come in: a folder, a data set, a data loader, any iterable.

An example is {"images": an RGB picture, "prompts": a text}; the family gets other entries as they are. A
preference has a second picture, "losers": somebody liked "images" better.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from pictura.errors import FileError, ParameterError, shown

__all__ = ["Data", "Example", "read"]

Example = Mapping[str, Any]
_NAMES = {
    **{"image": "images", "prompt": "prompts", "text": "prompts", "caption": "prompts"},
    **{"winner": "images", "winners": "images", "loser": "losers"},
}
_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"}
_TABLE = "metadata.jsonl"


@dataclass(frozen=True)
class Data:
    """Examples that can be gone through again and again; `source` has a length and indices, or only an order.

    size: pictures of another (width, height) are scaled and cropped about their centre to this one. pairs:
    every example must be a preference.
    """

    source: Any
    size: tuple[int, int] | None = None
    pairs: bool = False

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[Example]:
        for batch in self.batches(16):
            yield from batch

    @property
    def indexed(self) -> bool:
        return hasattr(self.source, "__len__") and hasattr(self.source, "__getitem__")

    def batches(self, size: int, order: Iterable[int] | None = None) -> Iterator[list[Example]]:
        """Lists of `size` examples, the last one maybe shorter; in `order`, if given."""
        rows = self.source if order is None else (self.source[int(at)] for at in order)
        batch: list[Example] = []
        for row in rows:
            for example in _examples(row, self.size, self.pairs):
                batch.append(example)
                if len(batch) == size:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def prompts(self) -> list[str]:
        """All texts, without opening a picture where that can be helped."""
        if isinstance(self.source, _Folder):
            return [row["prompts"] for row in self.source.rows]
        texts = [name for name in _columns(self.source) if _NAMES.get(name, name) == "prompts"]
        if texts:
            return [str(text) for text in self.source[texts[0]]]
        return [str(example["prompts"]) for batch in self.batches(64) for example in batch]


def read(
    data: object,
    *,
    epochs: int = 1,
    size: tuple[int, int] | None = None,
    name: str = "data",
    pairs: bool = False,
) -> Data:
    """`data` as examples; ParameterError or FileError at once for what can never give any."""
    if isinstance(data, (str, os.PathLike)):
        return Data(_folder(Path(data), pairs), size, pairs)
    if isinstance(data, Mapping):
        return Data(list(_examples(data, size, pairs)), size, pairs)
    if not isinstance(data, Iterable):
        raise ParameterError(
            f"{name} is {shown(data)}; give a folder of captioned pictures, a data set, or any iterable of "
            "{'images': picture, 'prompts': text}",
            parameter=name,
        )
    if isinstance(data, Iterator) and epochs > 1:
        raise ParameterError(
            f"{name} can be read once only, but epochs is {epochs}; give a list or a data set", parameter=name
        )
    if isinstance(data, Sequence) and not len(data):
        raise ParameterError(f"{name} is empty; give at least one example", parameter=name)
    if isinstance(data, (list, tuple)):
        for row in data:  # all of it is here already, so a bad row is told before any work
            list(_examples(row, size, pairs))
    return Data(data, size, pairs)


class _Folder(Sequence[Example]):
    """Pictures of a folder, opened when asked for."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: Any) -> Any:
        return self.rows[at]


def _folder(folder: Path, pairs: bool) -> _Folder:
    """Captions are in metadata.jsonl ({"file_name", "text"} a line) or beside each picture in a .txt file;
    preferences are in metadata.jsonl ({"winner_file_name", "loser_file_name", "prompt"} a line)."""
    if not folder.is_dir():
        raise FileError(f"there is no folder {str(folder)!r}; give one with pictures and their captions")
    if (folder / _TABLE).exists():
        rows = list(_table(folder))
    else:
        pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURES)
        rows = [{"images": path, "prompts": _caption(path)} for path in pictures]
    if pairs and not all("losers" in row for row in rows):
        raise FileError(
            f"folder {str(folder)!r} holds no preferences; give one that "
            "`pictura history export --preferences` wrote"
        )
    if not rows:
        raise FileError(f"folder {str(folder)!r} has no pictures; put some there, each with a .txt caption")
    return _Folder(rows)


def _caption(picture: Path) -> str:
    path = picture.with_suffix(".txt")
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise FileError(
            f"picture {str(picture)!r} has no caption; write it to {path.name!r} or to {_TABLE!r}"
        ) from None


def _table(folder: Path) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate((folder / _TABLE).read_text("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            files = {"images": row["winner_file_name" if "winner_file_name" in row else "file_name"]}
            if "loser_file_name" in row:
                files["losers"] = row["loser_file_name"]
            paths = {name: folder / file for name, file in files.items()}
            caption = next(row[name] for name in ("text", "prompts", "prompt", "caption") if name in row)
        except (ValueError, KeyError, TypeError, StopIteration):
            raise FileError(
                f"line {number} of {str(folder / _TABLE)!r} is {shown(line)}; "
                'write {"file_name": ..., "text": ...}'
            ) from None
        for path in paths.values():
            if not path.resolve().is_relative_to(folder.resolve()):
                raise FileError(f"line {number} of {str(folder / _TABLE)!r} points out of its folder")
            if not path.is_file():
                raise FileError(f"there is no picture {str(path)!r}, which line {number} of {_TABLE} names")
        yield {**paths, "prompts": str(caption), **{name: row[name] for name in ("votes",) if name in row}}


def _columns(source: Any) -> Sequence[str]:
    """Of a `datasets.Dataset`, whose columns can be read without their rows."""
    return getattr(source, "column_names", None) or ()


def _examples(row: Any, size: tuple[int, int] | None, pairs: bool = False) -> Iterator[Example]:
    """One example, or those of a batch whose columns are lists or stacked arrays."""
    if not isinstance(row, Mapping):
        raise ParameterError(
            f"an example is {shown(row)}; give {{'images': picture, 'prompts': text}}", parameter="data"
        )
    named: dict[str, Any] = {_NAMES.get(str(name), str(name)): value for name, value in row.items()}
    for name in ("images", "prompts", *(["losers"] if pairs else [])):
        if name not in named:
            raise ParameterError(
                f"an example has {shown(sorted(map(str, row)))} and no {name!r}; name the column so",
                parameter="data",
            )
    if isinstance(named["prompts"], (list, tuple)):
        count = len(named["prompts"])
        for name, value in named.items():
            if not hasattr(value, "__len__") or len(value) != count:
                raise ParameterError(
                    f"a batch has {count} prompts, but its {name} is {shown(value)}", parameter="data"
                )
        for at in range(count):
            yield from _examples({name: value[at] for name, value in named.items()}, size, pairs)
        return
    if not isinstance(named["prompts"], str):
        raise ParameterError(f"a prompt is {shown(named['prompts'])}; give a text", parameter="data")
    pictures = ("images", "losers") if pairs else ("images",)
    yield {**named, **{name: _picture(named[name], size) for name in pictures}}


def _picture(value: Any, size: tuple[int, int] | None) -> Image.Image:
    """RGB; transparent parts on white. Arrays are (h, w, 3) or (3, h, w), uint8 or floats 0 to 1."""
    if isinstance(value, (str, os.PathLike)):
        image = _opened(Path(value))
    elif isinstance(value, Image.Image):
        image = value
    else:
        image = _from_array(value)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), layered)
    image = image.convert("RGB")
    return image if size is None or image.size == size else ImageOps.fit(image, size)


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, ValueError, SyntaxError) as error:
        raise FileError(f"picture {str(path)!r} cannot be read ({error})") from error


def _from_array(value: Any) -> Image.Image:
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if array.ndim == 3 and array.shape[0] == 3 != array.shape[2]:
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ParameterError(
            f"a picture is {shown(value)}; give an RGB picture, (h, w, 3) or (3, h, w)", parameter="data"
        )
    if array.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(array))
    if not np.issubdtype(array.dtype, np.floating) or not (array.min() >= 0 and array.max() <= 1):
        raise ParameterError(
            f"a picture has {array.dtype} values from {array.min()} to {array.max()}; "
            "give uint8, or floats from 0 to 1",
            parameter="data",
        )
    return Image.fromarray(np.ascontiguousarray((array * 255).round().astype(np.uint8)))
