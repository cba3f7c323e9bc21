"""From a preset to a family with its weights in place, and back to a folder."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from pictura import __version__, checkpoints, families, measuring
from pictura import device as devices
from pictura.errors import CheckpointError, ParameterError, PresetError, did_you_mean, shown
from pictura.families import Family
from pictura.formats import networks, preset, safetensors, writing
from pictura.nn import kernels, precision

__all__ = ["Loaded", "digest", "load", "save"]


LARGE = 300_000_000  # parameters from which on a model computes in the precision this machine gains by
_SHARE = 0.9  # of the free memory may be weights; activations need the rest
SMALL = 256 * 2**20  # bytes of weights whose digest a load does not notice


@dataclass
class Loaded:
    """A family whose networks are on `device` in `dtype`, and what is known about its weights.

    stored: the dtypes they had on disk, files: where they were read from. digest: of the weights as loaded,
    None where nobody has asked yet. changed: whether they are others now. measured: whether the networks are
    set to the data they see, as trained ones are. streamed: whether the matrices of blocks stay in `files`.
    int8: whether the body computes in it.
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
    streamed: bool = False
    int8: bool = False

    def trainable(self) -> None:
        """ParameterError unless the weights are here in float32: steps of training are too small for less."""
        self._here()
        if self.dtype != torch.float32:
            raise ParameterError(
                f"dtype {self.dtype} cannot be trained; load with dtype='float32'", parameter="dtype"
            )

    def weights(self) -> dict[str, Tensor]:
        """The weights as they are now, by "<network>.<parameter>", in the dtypes they are stored in."""
        self._here()
        return networks.stored_as(networks.tensors(self.family.networks()), self.stored)

    def _here(self) -> None:
        if self.streamed or self.int8:
            name, way, other = "dtype", "dtype int8", "dtype='float32'"
            if self.streamed:
                name, way, other = "low_memory", "low_memory", "low_memory=False"
            raise ParameterError(
                f"this model was loaded with {way}, so its weights stay in their file; "
                f"load it with {other} to train or save it",
                parameter=name,
            )

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
    low_memory: bool | None = None,
    changes: Mapping[str, Any] | None = None,
    **more: Any,
) -> Loaded:
    """Resolve, check, build and fill, in this order. family: the only one allowed. more: see
    `checkpoints.find`.

    low_memory: None is where the weights would take more than `_SHARE` of the free memory.

    PresetError, ParameterError, CheckpointError; see `TextToImage.from_preset`.
    """
    place = devices.pick(device)
    found = checkpoints.find(given, load_weights=load_weights, **more)
    recipe = found.recipe
    if family is not None and recipe.family != family:
        raise PresetError(
            f"preset {shown(found.name)} is of family {recipe.family!r}, not {family!r}; "
            "load it with pictura.TextToImage.from_preset"
        )
    if recipe.family == checkpoints.DIFFUSERS:
        return _bridged(found, place, devices.precision(dtype, place), load_weights)
    architecture = _changed(recipe.architecture, changes or {}, load_weights)
    assets = checkpoints.complete(recipe, found.layout) if load_weights else checkpoints.assets(recipe)
    entries = recipe.entries if load_weights else None
    count = sum(math.prod(entry.shape) for entry in (entries or {}).values())
    kind, int8 = _precision(dtype, place, count)
    stored = {} if entries is None else {n: safetensors.torch_dtype(e.dtype) for n, e in entries.items()}
    files = tuple(sorted({entry.file for entry in (entries or {}).values()}))
    known = _verified(found, files) if load_weights else None
    owner = families.load(recipe.family)

    def make() -> Family:
        made = owner.from_config(architecture)
        if assets:
            made.assets.update(assets)  # type: ignore[attr-defined]  # families that read tokenizers have it
        return made

    streamed = _streamed(low_memory, count * kind.itemsize, place)
    root = Path(found.layout.path.anchor)
    built = networks.build(make, entries, dtype=kind, device=place, root=root, streamed=streamed)
    for name, module in built.networks().items():
        module.eval()
        if int8 and not streamed and not name.startswith("text_encoder"):
            precision.with_int8(module)
        if count > LARGE and place.type == "cpu":
            kernels.accelerate(module, keep=not streamed)
    config = preset.Config(
        family=recipe.family,
        architecture=recipe.architecture,
        defaults=recipe.defaults,
        provenance={**recipe.provenance, **({} if found.commit is None else {"hub": found.name})},
    )
    return Loaded(
        name=found.name,
        family=built,
        config=config,
        device=place,
        dtype=kind,
        stored=stored,
        files=files,
        digest=known,
        measured=load_weights,
        streamed=streamed,
        int8=int8 and not streamed,
    )


def _bridged(found: checkpoints.Found, place: torch.device, kind: torch.dtype, load_weights: bool) -> Loaded:
    from pictura.bridge import Pipeline

    if not load_weights:
        raise ParameterError(
            f"{shown(found.name)} comes through diffusers, which needs its weights; load it with them",
            parameter="load_weights",
        )
    layout, recipe = found.layout, found.recipe
    made = Pipeline.open(layout.path, recipe.architecture["pipeline"], dtype=kind, variant=layout.variant)
    for module in made.networks().values():
        module.to(place).eval()
    entries = recipe.entries
    return Loaded(
        name=found.name,
        family=cast(Family, made),  # its options are its own pipeline's, not the class's
        config=preset.Config(family=recipe.family, architecture=made.config(), defaults={}, provenance={}),
        device=place,
        dtype=kind,
        files=tuple(sorted({entry.file for entry in entries.values()})),
        measured=True,
    )


def digest(loaded: Loaded) -> str:
    """SHA-256 of the weights as files, as they are now."""
    if loaded.changed or not loaded.files:
        return writing.live_digest(loaded.weights())
    return writing.digest(loaded.files)


def save(loaded: Loaded, folder: Path, *, overwrite: bool = False) -> None:
    """Write a preset folder that loads as the same model, bit for bit. FileError where something is there."""
    if loaded.config.family == checkpoints.DIFFUSERS:
        raise ParameterError(
            "a pipeline that comes through diffusers is saved by its own family.pipeline.save_pretrained",
            parameter="folder",
        )
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
    readme = preset.card(folder.name, config, count, writing.live_digest(weights))
    assets: Mapping[str, bytes] = getattr(loaded.family, "assets", {})
    files = {f"{name}.json": content for name, content in assets.items()}
    preset.write(folder, config, weights, readme, files=files, overwrite=overwrite)


def _precision(dtype: str | torch.dtype | None, device: torch.device, count: int) -> tuple[torch.dtype, bool]:
    """What to compute in, and whether large products are int8: what was asked for; "int8" only where it is
    quicker. None is what PICTURA_DTYPE says, else "auto" for large models and float32 for small ones."""
    if dtype is None:
        dtype = os.environ.get("PICTURA_DTYPE") or ("auto" if count > LARGE else None)
    if dtype not in ("auto", "int8") or device.type != "cpu" or (dtype == "auto" and count <= LARGE):
        return devices.precision("auto" if dtype == "int8" else dtype, device), False
    rates = precision.rates()
    half = rates["bfloat16"] > precision.GAIN * rates["float32"]
    best = rates["bfloat16" if half else "float32"]
    kind = torch.bfloat16 if half else torch.float32
    return kind, dtype == "int8" and rates["int8"] > precision.GAIN * best


def _streamed(low_memory: bool | None, size: int, device: torch.device) -> bool:
    """Whether weights of that many bytes stay in their file."""
    if low_memory is not None or not size:
        return bool(low_memory and size)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else measuring.free_memory()
    return size > _SHARE * free


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


def _verified(source: checkpoints.Found, files: Sequence[Path]) -> str | None:
    """The digest of the files, if it costs little or someone promised it; CheckpointError for another."""
    if source.sha256 is None and sum(path.stat().st_size for path in files) > SMALL:
        return None
    found = writing.digest(files)
    if source.sha256 not in (None, found):
        raise CheckpointError(
            f"the weights of preset {shown(source.name)} have SHA-256 {found}, but {source.sha256} belongs "
            "there; install or download them again"
        )
    return found
