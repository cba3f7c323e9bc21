"""What is known of a model before it is built: from its files' names, sizes and descriptions. Needs no
torch."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pictura.cli.service import described_service

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pictura.formats.layout import Layout

__all__ = ["described", "licence", "size_of", "weights_bytes"]

_SMALL = 256 * 2**20  # bytes that are hashed without being asked


def described(model: str, *, config: str | None = None, variant: str | None = None) -> dict[str, Any]:
    """All that is known of a model without building it, as JSON values.

    "missing": components without which it draws nothing, or less well. "unused": how many tensors of a single
    file nobody needs. "digest": of small models, or of those that promise one. "verified": whether the
    weights have the digest that the preset promises; None where it promises none.
    """
    from pictura import checkpoints, presets, providers
    from pictura.errors import FileError
    from pictura.formats import writing

    if (remote := presets.remote(model)) is not None:
        scheme = remote.partition("://")[0].partition("+")[0]
        if providers.known(scheme):
            return described_service(providers.canonical(scheme))
    given: dict[str, Any] = {"config": config, "variant": variant}
    try:
        found = checkpoints.find(model, **given)
    except FileError:  # a folder without weights is a model too, with random ones
        found = checkpoints.find(model, load_weights=False, **given)
    recipe, preset = found.recipe, presets.presets().get(model)
    files = sorted({entry.file for entry in recipe.entries.values()})
    size = sum(file.stat().st_size for file in files)
    promised = preset.sha256 if preset else None
    digest = writing.digest(files) if files and (promised or size <= _SMALL) else None
    return {
        "name": found.name,
        "description": preset.description if preset else "",
        "family": recipe.family,
        "version": recipe.plan.version if recipe.plan else None,
        "layout": found.layout.kind,
        "folder": str(found.layout.path),
        "commit": found.commit,
        "licence": (preset.licence if preset else "") or licence(found.layout),
        "parameters": sum(math.prod(entry.shape) for entry in recipe.entries.values()),
        "parts": _parts(recipe.entries),
        "dtype": _dtype(recipe.entries),
        "bytes": size,
        "missing": checkpoints.missing(recipe),
        "unused": len(recipe.unused),
        "digest": digest,
        "verified": None if promised is None else digest == promised,
        "score": dict(preset.score or {}) if preset else {},
        "defaults": dict(recipe.defaults),
        "options": _options(recipe.family),
        "provenance": dict(recipe.provenance),
        "architecture": dict(recipe.architecture),
    }


def weights_bytes(place: Path) -> int:
    """How much room the weights take that lie in a folder or file."""
    files = [place] if place.is_file() else [*place.rglob("*.safetensors"), *place.rglob("*.h5")]
    return sum(path.stat().st_size for path in files)


def size_of(size: int) -> str:
    """Bytes for people: "5.9 MB"."""
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit in ("B", "kB") or value >= 100 else f"{value:.1f} {unit}"


def licence(layout: Layout) -> str:
    """What the model card beside it says, in the words of its first lines; "" where none does."""
    folder = layout.path if layout.path.is_dir() else layout.path.parent
    card = folder / "README.md"
    if not card.is_file():
        return ""
    lines = layout.read(card)[:20_000].decode("utf-8", "replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return ""
    said = {}
    for line in lines[1:]:
        if line.strip() == "---":
            break
        name, colon, value = line.partition(":")
        if colon:
            said[name.strip()] = value.strip().strip("\"'")
    named = said.get("license_name") if said.get("license") in (None, "other") else None
    return named or said.get("license", "")


def _parts(entries: Mapping[str, Any]) -> dict[str, int]:
    """Parameters by network."""
    found: Counter[str] = Counter()
    for name, entry in entries.items():
        found[name.partition(".")[0]] += math.prod(entry.shape)
    return dict(found)


def _dtype(entries: Mapping[str, Any]) -> str:
    """The dtypes on disk, the most frequent first: "float16", "bfloat16, float32"."""
    from pictura.formats.safetensors import DTYPES

    count: Counter[str] = Counter()
    for entry in entries.values():
        count[DTYPES[entry.dtype][0]] += entry.end - entry.start
    return ", ".join(name for name, _ in count.most_common())


def _options(family: str) -> Mapping[str, str]:
    """The family's own options and what they are for; without torch no family can be asked, so none."""
    from importlib.util import find_spec

    from pictura import families

    if find_spec("torch") is None or family not in families.names():
        return {}
    return {name: option.help for name, option in families.load(family).options.items()}
