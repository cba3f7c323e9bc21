"""What steers a UNet beside the text: ControlNets, T2I-Adapters, and the style of a picture by IP-Adapters.

Each is a network of its own from its own file, named in the request with the digest of its weights. Its part
of an evaluation happens inside the UNet's: a question carries, as its variant, which networks and pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pictura.attachments import open_picture, recorded
from pictura.errors import OtherModel, ParameterError, PresetError, shown
from pictura.families import Option
from pictura.families.stable_diffusion import steering_files as files
from pictura.families.stable_diffusion import style
from pictura.formats import safetensors, writing
from pictura.levels import Level
from pictura.nn.controlnet import ControlNet
from pictura.nn.ip_adapter import IPAdapter, attending
from pictura.nn.t2i_adapter import T2IAdapter
from pictura.nn.unet import UNet
from pictura.request import Request
from pictura.schedulers import Plan

__all__ = ["OPTIONS", "Steered", "Steering"]

OPTIONS = (
    Option(
        name="control", type=list, default=None, attach="picture",
        help="ControlNets or T2I-Adapters: a list of {model, image[, weight, start, end]}",
    ),
    Option(
        name="reference", type=dict, default=None, attach="picture",
        help="style of a picture by an IP-Adapter: {model, encoder, image[, weight]}",
    ),
)  # fmt: skip
PICTURES = 1024  # that are kept: more than requests that are under way
_KINDS: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "ControlNetModel": ControlNet,
    "T2IAdapter": T2IAdapter,
}
_TOLD = {"name", "sha256"}  # by whoever offers it, and by `resolve`
_CONTROL = {"model", "image", "weight", "start", "end"} | _TOLD
_REFERENCE = {"model", "encoder", "image", "weight"} | _TOLD


class _Control(NamedTuple):
    """digest of the network, digest of the picture, its size, and how strongly it counts."""

    network: str
    picture: str
    size: tuple[int, int]
    weight: float


class Steered(NamedTuple):
    """A question's variant: the controls that count at its step, and the reference (its last field is whether
    the question is the one away from which guidance moves, which sees no picture)."""

    controls: tuple[_Control, ...]
    reference: tuple[str, str, float, bool] | None


class Steering:
    """The steering networks and pictures that a model has been given."""

    def __init__(self, unet: Callable[[], UNet]) -> None:
        self._unet = unet
        self._networks: dict[str, nn.Module] = {}  # by the digest of their weights
        self._pictures: dict[Hashable, Tensor] = {}

    def resolve(self, request: Request) -> Request:
        """`request` with the digest of every steering network; ParameterError for what is no control."""
        options = dict(request.options)
        if options.get("control") is not None:
            given = _listed(options["control"])
            options["control"] = [self._entry(one, _CONTROL, "control") for one in given]
        if options.get("reference") is not None:
            options["reference"] = self._entry(options["reference"], _REFERENCE, "reference")
        return replace(request, options=options)

    def check(self, request: Request) -> None:
        """Load what the request names. OtherModel where it does not fit this one."""
        controls, reference = request.options.get("control") or (), request.options.get("reference")
        for one in controls:
            network = self._loaded(one, "control")
            if isinstance(network, ControlNet):
                files.same(asdict(network.config), asdict(self._unet().config), files.called(one))
            elif isinstance(network, T2IAdapter):
                _wide(network, self._unet(), one)
            self._hint(one, request.size or (64, 64), network)
        if controls and (request.options.get("tile") or request.options.get("upscale")):
            message = "control cannot go with tiles; leave tile and upscale out"
            raise ParameterError(message, parameter="control")
        if reference is not None:
            adapter = self._loaded(reference, "reference")
            assert isinstance(adapter, IPAdapter)
            style.fitting(adapter, self._unet(), reference)
            self._embedding(reference, adapter)
        if (controls or reference is not None) and (request.options.get("deep_cache") or 1) > 1:
            message = "deep_cache would leave out the layers that control and reference act on; give 1"
            raise ParameterError(message, parameter="deep_cache")

    def variant(self, request: Request, plan: Plan, level: Level, *, negative: bool) -> Hashable:
        """What a question at `level` of `plan` is asked with; () where nothing steers."""
        controls, reference = request.options.get("control") or (), request.options.get("reference")
        if not controls and reference is None:
            return ()
        assert request.size is not None
        steps, found = len(plan.levels) - 1, []
        at = sum(other.ratio > level.ratio for other in plan.levels)  # also between two steps
        for one in controls:
            if at / steps >= one.get("start", 0.0) and (at + 1) / steps <= one.get("end", 1.0):
                self._hint(one, request.size, self._loaded(one, "control"))
                picture = one["image"]["sha256"]
                found.append(_Control(one["sha256"], picture, request.size, float(one.get("weight", 1.0))))
        read = None
        if reference is not None:
            weight = float(reference.get("weight", 1.0))
            self._embedding(reference, self._loaded(reference, "reference"))
            read = (reference["sha256"], reference["image"]["sha256"], weight, negative)
        return Steered(tuple(found), read)

    def arguments(
        self, variant: Hashable, x: Tensor, time: Tensor, context: Tensor, **more: Tensor | None
    ) -> dict[str, Any]:
        """What the variant adds to the UNet's call on x (b, c, h, w)."""
        if not isinstance(variant, Steered):
            return {}
        said: dict[str, Any] = {}
        residuals: list[tuple[list[Tensor], Tensor]] = []
        features: list[list[Tensor]] = []
        for control in variant.controls:
            network = self._networks[control.network].to(x.device, x.dtype)
            channels = getattr(network, "channels", 3)
            hint = self._pictures[control.picture, control.size, channels].to(x).expand(len(x), -1, -1, -1)
            if isinstance(network, ControlNet):
                skips, middle = network(x[:, : network.config.in_channels], time, context, hint, **more)
                residuals.append(([control.weight * skip for skip in skips], control.weight * middle))
            else:
                features.append([control.weight * level for level in network(hint)])
        if residuals:
            skips, middles = zip(*residuals, strict=True)
            said["residuals"] = _summed(list(skips)), sum(middles[1:], middles[0])
        if features:
            said["adapter"] = _summed(features)
        if variant.reference is not None:
            digest, picture, weight, negative = variant.reference
            adapter = self._networks[digest].to(x.device, x.dtype)
            assert isinstance(adapter, IPAdapter)
            seen = self._pictures[picture, digest][int(negative)].to(x)
            tokens = adapter.image_proj(seen.expand(len(x), *seen.shape))
            said["attend"] = attending(adapter.keys(self._unet()), tokens, weight)
        return said

    def _entry(self, given: object, known: set[str], name: str) -> dict[str, Any]:
        """{"model", "image", ..., "sha256"} with the picture recorded and the network's digest."""
        if not isinstance(given, Mapping) or set(given) - known or not {"model", "image"} <= set(given):
            listed = ", ".join(sorted(known - _TOLD))
            raise ParameterError(f"{name} is {shown(given)}; give {{{listed}}}", parameter=name)
        entry = dict(given)
        for key, low, high in (("weight", -10.0, 10.0), ("start", 0.0, 1.0), ("end", 0.0, 1.0)):
            value = entry.get(key, 1.0)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                message = f"the {key} of a {name} is {shown(value)}; give {low:g}..{high:g}"
                raise ParameterError(message, parameter=name)
        for key in ("model", "encoder"):
            if key in entry and (not isinstance(entry[key], str) or "\0" in entry[key]):
                message = f"the {key} of a {name} is {shown(entry[key])}; give a path"
                raise ParameterError(message, parameter=name)
        entry["image"] = recorded(entry["image"], name)
        digest = writing.digest(sorted({e.file for e in self._entries(entry, name).values()}))
        if entry.setdefault("sha256", digest) != digest:
            raise ParameterError(
                f"the {name} {files.called(entry)} is another than the request was made with; find it",
                parameter=name,
            )
        return entry

    def _entries(self, entry: Mapping[str, Any], name: str) -> dict[str, safetensors.Entry]:
        """The tensors of an entry's network, and of its picture encoder."""
        if name == "control":
            return self._source(entry).entries
        return style.entries(entry)

    def _source(self, entry: Mapping[str, Any]) -> files.Source:
        return files.control(entry["model"], asdict(self._unet().config))

    def _loaded(self, entry: Mapping[str, Any], name: str) -> nn.Module:
        digest = entry["sha256"]
        if digest not in self._networks:
            if name == "control":
                config, entries = self._source(entry)
                kind = config.get("_class_name")
                if kind not in _KINDS:
                    known = " and ".join(_KINDS)
                    raise PresetError(f"control {files.called(entry)} is {shown(kind)}; {known} are known")
                self._networks[digest] = style.built(lambda: _KINDS[str(kind)](config), entries)
            else:
                self._networks[digest] = style.adapter(entry)
        return self._networks[digest]

    def _hint(self, entry: Mapping[str, Any], size: tuple[int, int], network: nn.Module) -> None:
        """Read a control picture as the network wants it, (1, c, h, w) in 0..1."""
        channels = getattr(network, "channels", 3)
        key = entry["image"]["sha256"], tuple(size), channels
        if key not in self._pictures:
            picture = open_picture(entry["image"], "control").convert("RGB" if channels == 3 else "L")
            if picture.size != tuple(size):
                picture = picture.resize(size, Image.Resampling.LANCZOS)
            array = np.asarray(picture, np.float32) / 255
            tensor = torch.from_numpy(array if channels == 3 else array[..., None])
            self._keep(key, tensor.permute(2, 0, 1)[None].contiguous())

    def _embedding(self, entry: Mapping[str, Any], adapter: nn.Module) -> None:
        """Embed a reference picture, and none: two rows."""
        assert isinstance(adapter, IPAdapter)
        key = entry["image"]["sha256"], entry["sha256"]
        if key not in self._pictures:
            self._keep(key, style.embedding(entry, adapter))

    def _keep(self, key: Hashable, picture: Tensor) -> None:
        """Remember a picture; of very many the oldest is forgotten, and read again when it is wanted."""
        while len(self._pictures) >= PICTURES:
            del self._pictures[next(iter(self._pictures))]
        self._pictures[key] = picture


def _listed(given: object) -> tuple[Any, ...]:
    if isinstance(given, Mapping):
        return (given,)
    if not isinstance(given, (list, tuple)):
        message = f"control is {shown(given)}; give a list of {{model, image}}"
        raise ParameterError(message, parameter="control")
    return tuple(given)


def _wide(adapter: T2IAdapter, unet: UNet, entry: Mapping[str, Any]) -> None:
    theirs, ours = adapter.adapter.widths, unet.config.block_out_channels
    if theirs[: len(ours)] != ours:
        raise OtherModel(
            f"control {files.called(entry)} is for another model: its widths are {shown(theirs)}, "
            f"this model's {shown(ours)}"
        )


def _summed(lists: list[list[Tensor]]) -> list[Tensor]:
    return [sum(parts[1:], parts[0]) for parts in zip(*lists, strict=True)]
