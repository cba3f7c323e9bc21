"""Styles: texts with a name that are put around a prompt, and others for its negative prompt.

Ours are in `styles.json`. A user's own come from a file: JSON of the same form, or the `styles.csv` of
AUTOMATIC1111's web interface (columns name, prompt, negative_prompt).
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files as resources
from pathlib import Path

from pictura.errors import ParameterError, did_you_mean, shown

__all__ = ["Style", "applied", "load", "read"]

MAX_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """`{prompt}` in a text is where the prompt goes; without it the text is put behind, after a comma."""

    prompt: str = ""
    negative_prompt: str = ""


def load(path: str | os.PathLike[str] | None = None) -> dict[str, Style]:
    """Our styles by name, and those of the file at `path` (or of PICTURA_STYLES), which may replace ours.

    ParameterError where the file cannot be used.
    """
    path = path or os.environ.get("PICTURA_STYLES") or None
    ours = _parsed("styles.json", (resources("pictura.text") / "styles.json").read_bytes())
    return ours if path is None else ours | read(path)


def read(path: str | os.PathLike[str]) -> dict[str, Style]:
    """The styles in a file, `.csv` or JSON; ParameterError where it cannot be used."""
    place = Path(path).expanduser()
    try:
        with place.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _wrong(f"{str(place)!r} cannot be read: {reason}") from error
    if len(data) > MAX_BYTES:
        raise _wrong(f"{str(place)!r} has more than {MAX_BYTES >> 20} MB")
    return dict(_parsed(str(place), data))


def applied(
    names: Iterable[str], styles: Mapping[str, Style], prompt: str, negative: str | None
) -> tuple[str, str | None]:
    """(prompt, negative prompt) with the styles put around them, one after the other.

    ParameterError for a style that is not there.
    """
    for name in names:
        if name not in styles:
            raise ParameterError(
                f"style {shown(name)} is unknown; {did_you_mean(name, styles)}", parameter="style"
            )
        prompt = _around(styles[name].prompt, prompt)
        negative = _around(styles[name].negative_prompt, negative or "") or negative
    return prompt, negative


def _around(style: str, text: str) -> str:
    if "{prompt}" in style:
        return style.replace("{prompt}", text)
    return ", ".join(part for part in (text, style) if part)


@lru_cache(maxsize=16)
def _parsed(name: str, data: bytes) -> dict[str, Style]:
    try:
        text = data.decode("utf-8-sig")
        if name.lower().endswith(".csv"):
            rows: object = {row.get("name"): row for row in csv.DictReader(io.StringIO(text), strict=True)}
        else:
            rows = json.loads(text)
    except (ValueError, RecursionError, csv.Error) as error:
        raise _wrong(f"{name!r} is neither JSON nor CSV in UTF-8 ({error})") from error
    if not isinstance(rows, dict):
        raise _wrong(f"{name!r} holds {shown(rows)}, not a JSON object of names")
    found = {}
    for key, row in rows.items():
        if not isinstance(row, dict) or not isinstance(key, str):
            raise _wrong(f"{name!r} has {shown(key)}: {shown(row)}, not a name and its texts")
        texts = {part: row.get(part) or "" for part in ("prompt", "negative_prompt")}
        if not all(isinstance(value, str) for value in texts.values()):
            raise _wrong(f"{name!r} has texts of {shown(key)} that are no texts")
        found[key] = Style(**texts)
    return found


def _wrong(what: str) -> ParameterError:
    return ParameterError(
        f'styles: {what}; write {{"NAME": {{"prompt": TEXT, "negative_prompt": TEXT}}}} '
        "or a CSV file with these columns",
        parameter="styles",
    )
