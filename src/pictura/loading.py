"""From a preset to a family with its weights in place, and back to a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pictura import __version__, families, presets
from pictura import device as devices
from pictura.errors import CheckpointError, ParameterError, PresetError, did_you_mean, shown
from pictura.families import Family
from pictura.formats import networks, preset, safetensors

__all__ = ["Loaded", "digest", "load", "save"]


SMALL = 256 * 2**20  # bytes of weights whose digest a load does not notice


@dataclass
class Loaded:
    """A family whose networks are on `device` in `dtype`, and what is known about its weights.

    stored: the dtypes they had on disk, files: where they were read from. digest: of the weights as loaded,
    None where nobody has asked yet. changed: whether they are others now. measured: whether the networks are
    set to the data they see, as trained ones are.
    """

    name: str
    family: Family
    config: preset.Config
    device: torch.device
    dtype: torch.dtype
    stored: Mapping[str, torch.dtype] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    digest: str | None = None
    changed: bool = False
    measured: bool = False

    def trainable(self) -> None:
        """ParameterError unless the weights are float32: steps of training are too small for less."""
        if self.dtype != torch.float32:
            raise ParameterError(
                f"dtype {self.dtype} cannot be trained; load with dtype=None", parameter="dtype"
            )

    def weights(self) -> dict[str, Tensor]:
        """The weights as they are now, by "<network>.<parameter>", in the dtypes they are stored in."""
        return networks.stored_as(networks.tensors(self.family.networks()), self.stored)

    def defaults(self) -> dict[str, Any]:
        """By parameter: the preset's own, and the family's where it leaves them open."""
        return {**self.family.defaults(), **self.config.defaults}


def load(
    given: str | os.PathLike[str],
    *,
    load_weights: bool = True,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device = "auto",
    family: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Loaded:
    """Resolve, check, build and fill, in this order. `family`: the only one allowed.

    PresetError, ParameterError, CheckpointError; see `TextToImage.from_preset`.
    """
    place = devices.pick(device)
    kind = devices.precision(dtype, place)
    source = presets.resolve(given)
    config = preset.read(source.folder, root=source.root)
    if family is not None and config.family != family:
        raise PresetError(
            f"preset {shown(source.name)} is of family {config.family!r}, not {family!r}; "
            "load it with pictura.TextToImage.from_preset"
        )
    if config.family not in families.names():
        hint = did_you_mean(config.family, families.names())
        raise PresetError(f"preset {shown(source.name)} has unknown family {shown(config.family)}; {hint}")
    architecture = _changed(config.architecture, changes or {}, load_weights)
    entries = safetensors.weights(source.folder, root=source.root) if load_weights else None
    stored = {} if entries is None else {n: safetensors.torch_dtype(e.dtype) for n, e in entries.items()}
    files = tuple(sorted({entry.file for entry in (entries or {}).values()}))
    known = _verified(source, files) if load_weights else None
    owner = families.load(config.family)
    built = networks.build(
        lambda: owner.from_config(architecture), entries, dtype=kind, device=place, root=source.root
    )
    for module in built.networks().values():
        module.eval()
    if source.commit is not None:
        provenance = {**config.provenance, "hub": source.name}
        config = preset.Config(**{**vars(config), "provenance": provenance})
    return Loaded(
        name=source.name,
        family=built,
        config=config,
        device=place,
        dtype=kind,
        stored=stored,
        files=files,
        digest=known,
        measured=load_weights,
    )


def digest(loaded: Loaded) -> str:
    """SHA-256 of the weights as files, as they are now."""
    if loaded.changed or not loaded.files:
        return safetensors.live_digest(loaded.weights())
    return safetensors.digest(loaded.files)


def save(loaded: Loaded, folder: Path, *, overwrite: bool = False) -> None:
    """Write a preset folder that loads as the same model, bit for bit. FileError where something is there."""
    weights = loaded.weights()
    provenance = dict(loaded.config.provenance)
    if loaded.changed or not loaded.files:
        provenance |= {"based_on": loaded.name, "pictura": __version__}
    config = preset.Config(
        family=loaded.config.family,
        architecture=loaded.family.config(),
        defaults=loaded.defaults(),
        provenance=provenance,
    )
    count = sum(tensor.numel() for tensor in weights.values())
    readme = preset.card(folder.name, config, count, safetensors.live_digest(weights))
    preset.write(folder, config, weights, readme, overwrite=overwrite)


def _changed(
    architecture: Mapping[str, Any], changes: Mapping[str, Any], load_weights: bool
) -> dict[str, Any]:
    for name in changes:
        if load_weights:
            raise ParameterError(
                f"{name} would change the architecture, which the weights do not fit; add load_weights=False",
                parameter=name,
            )
        if name not in architecture:
            hint = did_you_mean(name, architecture)
            raise ParameterError(f"the architecture has no {name}; {hint}", parameter=name)
    return {**architecture, **changes}


def _verified(source: presets.Source, files: Sequence[Path]) -> str | None:
    """The digest of the files, if it costs little or someone promised it; CheckpointError for another."""
    if source.sha256 is None and sum(path.stat().st_size for path in files) > SMALL:
        return None
    found = safetensors.digest(files)
    if source.sha256 not in (None, found):
        raise CheckpointError(
            f"the weights of preset {shown(source.name)} have SHA-256 {found}, but {source.sha256} belongs "
            "there; install or download them again"
        )
    return found
