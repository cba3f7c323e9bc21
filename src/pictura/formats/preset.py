"""A preset folder: `config.json`, `model.safetensors` (or shards with their index) and `README.md`.

`config.json` is {"family", "architecture", "defaults", "provenance"}: how to build the networks, what to use
where a request leaves things open, and where the weights come from. Data only: no code, no pickle.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pictura.errors import FileError, PicturaError, PresetError, shown
from pictura.formats import safetensors
from pictura.formats.reading import read_json

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CONFIG", "Config", "card", "read", "write"]

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
    tensors: Mapping[str, Tensor],
    readme: str,
    *,
    overwrite: bool = False,
    shard: int = safetensors.SHARD,
) -> None:
    """Write a preset folder, whole or not at all.

    FileError where `folder` exists, unless it is empty or `overwrite` is set and it holds a preset.
    """
    folder = Path(os.path.abspath(folder))
    _may_write(folder, overwrite)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise FileError(f"{str(folder)!r} cannot be written: {error.strerror}") from error
    try:
        safetensors.write(fresh, tensors, shard=shard)
        values = {name: value for name, value in vars(config).items()}
        (fresh / CONFIG).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")
        (fresh / "README.md").write_text(readme, "utf-8")
        fresh.chmod(0o755)
        old = fresh.with_suffix(".old")
        if folder.exists():
            os.rename(folder, old)
        os.rename(fresh, folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise FileError(f"{str(folder)!r} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


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


def _may_write(folder: Path, overwrite: bool) -> None:
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise FileError(f"{str(folder)!r} is a file; choose another name")
    if not any(folder.iterdir()):
        return
    if not (folder / CONFIG).exists():
        raise FileError(f"folder {str(folder)!r} holds other files; choose another name")
    if not overwrite:
        raise FileError(f"{str(folder)!r} exists already; choose another name or allow overwriting")
