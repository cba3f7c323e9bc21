"""A preset folder: `config.json`, `model.safetensors` (or shards with their index) and `README.md`.

`config.json` is {"family", "architecture", "defaults", "provenance"}: how to build the networks, what to use
where a request leaves things open, and where the weights come from. Data only: no code, no pickle.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pictura.errors import FileError, PicturaError, PresetError, shown
from pictura.formats import writing
from pictura.formats.reading import read_json
from pictura.formats.writing import SHARD

if TYPE_CHECKING:
    from pictura.formats.writing import Writable

__all__ = ["CONFIG", "Config", "card", "fresh", "read", "write"]

CONFIG = "config.json"


@dataclass(frozen=True, kw_only=True)
class Config:
    """What `config.json` says. All values are JSON."""

    family: str
    architecture: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


def read(folder: Path, *, root: Path | None = None) -> Config:
    """The configuration of the preset in `folder`; PresetError where there is none or it makes no sense."""
    if not folder.is_dir():
        raise PresetError(f"there is no folder {str(folder)!r}; give one that holds {CONFIG}")
    path = folder / CONFIG
    if not path.exists():
        raise PresetError(f"folder {str(folder)!r} has no {CONFIG}, so it is no preset")
    try:
        values = read_json(path, root=root)
    except PicturaError as error:
        raise PresetError(str(error)) from error
    family = values.get("family")
    if not isinstance(family, str):
        raise PresetError(f"{str(path)!r} names no family, so it is no Pictura preset")
    parts = {name: values.get(name) or {} for name in ("architecture", "defaults", "provenance")}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise PresetError(f"{str(path)!r}: {name} is {shown(part)}; a JSON object belongs there")
    return Config(family=family, **parts)


def write(
    folder: Path,
    config: Config,
    tensors: Writable,
    readme: str,
    *,
    files: Mapping[str, bytes] | None = None,
    overwrite: bool = False,
    shard: int = SHARD,
) -> None:
    """Write a preset folder, whole or not at all. files: others that belong to it, such as tokenizers.

    FileError where `folder` exists, unless it is empty or `overwrite` is set and it holds a preset.
    """
    with fresh(folder, overwrite=overwrite, mark=CONFIG) as new:
        writing.write(new, tensors, shard=shard)
        values = {name: value for name, value in vars(config).items()}
        (new / CONFIG).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")
        (new / "README.md").write_text(readme, "utf-8")
        for name, content in (files or {}).items():
            (new / name).write_bytes(content)


@contextmanager
def fresh(folder: Path, *, overwrite: bool = False, mark: str = CONFIG) -> Iterator[Path]:
    """A new folder that becomes `folder` when the block ends well, and leaves no trace when it does not.

    FileError where `folder` exists, unless it is empty or `overwrite` is set and the file `mark` is in it.
    """
    folder = Path(os.path.abspath(folder))
    _may_write(folder, overwrite, mark)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise FileError(f"{str(folder)!r} cannot be written: {error.strerror}") from error
    try:
        yield new
        new.chmod(0o755)
        old = new.with_suffix(".old")
        if folder.exists():
            os.rename(folder, old)
        os.rename(new, folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise FileError(f"{str(folder)!r} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def card(name: str, config: Config, parameters: int, digest: str) -> str:
    """The model card of a preset that is being saved: what it is, where it comes from, how to use it."""
    origin = "\n".join(f"- {key}: {_told(value)}" for key, value in config.provenance.items())
    defaults = "\n".join(f"- {key}: {_told(value)}" for key, value in config.defaults.items())
    return f"""---
library_name: pictura
pipeline_tag: text-to-image
tags: [pictura, {config.family}]
---
# {name}

A text-to-image model of the family `{config.family}` with {parameters:,} parameters.

```python
import pictura

model = pictura.TextToImage.from_preset("path/to/this/folder")
model.generate("a prompt", seed=7).save("picture.png")
```

## Defaults

{defaults or "None."}

## Where it comes from

{origin or "Random weights."}

SHA-256 of the weights: `{digest}`
"""


def _told(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _may_write(folder: Path, overwrite: bool, mark: str) -> None:
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise FileError(f"{str(folder)!r} is a file; choose another name")
    if not any(folder.iterdir()):
        return
    if not (folder / mark).exists():
        raise FileError(f"folder {str(folder)!r} holds other files; choose another name")
    if not overwrite:
        raise FileError(f"{str(folder)!r} exists already; choose another name or allow overwriting")
