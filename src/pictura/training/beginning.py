"""Weights to begin with: those of a preset folder, or of a built-in preset by its name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from pictura import families
from pictura.errors import PicturaError, TrainingError, did_you_mean, shown
from pictura.families import Family
from pictura.formats import networks, preset, safetensors

__all__ = ["begun"]


def begun(start: str) -> Family:
    """The family of the preset `start` with its weights in float32; TrainingError where it cannot be read."""
    known = families.presets()
    if start in known and known[start].folder is not None:
        folder = Path(str(files(families.package(known[start].family)) / str(known[start].folder)))
    else:
        folder = Path(start)
    if not folder.is_dir():
        hint = did_you_mean(start, [name for name, one in known.items() if one.folder is not None])
        raise TrainingError(f"start {shown(start)} is no folder of a preset and no built-in name; {hint}")
    try:
        config = preset.read(folder)
        owner = families.load(config.family)
        return networks.build(lambda: owner.from_config(config.architecture), safetensors.weights(folder))
    except PicturaError as error:
        raise TrainingError(f"start {shown(start)} cannot be used: {error}") from error
