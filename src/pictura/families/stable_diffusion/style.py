"""The style of a picture: an IP-Adapter, its picture encoder, and the picture as the encoder sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pictura.attachments import open_picture
from pictura.errors import CheckpointError, OtherModel, PresetError
from pictura.families.stable_diffusion.steering_files import called, folder_of, weights
from pictura.formats import hub, networks, reading, safetensors
from pictura.formats.safetensors import Entry
from pictura.nn.attention import Attention
from pictura.nn.clip_vision import MEAN, STD, ClipVision
from pictura.nn.ip_adapter import PROJECTIONS, IPAdapter

N = TypeVar("N", bound=nn.Module)

__all__ = ["adapter", "built", "embedding", "entries", "fitting"]


def entries(entry: Mapping[str, Any]) -> dict[str, Entry]:
    """The tensors of an IP-Adapter, "adapter.…", and of its picture encoder, "encoder.…"."""
    file = Path(entry["model"]).expanduser()
    if not file.is_file() or file.suffix != ".safetensors":
        raise PresetError(f"reference {called(entry)} is no .safetensors file; give an IP-Adapter's")
    tensors = safetensors.header(file)
    if not any(mark in tensors for mark in PROJECTIONS):
        raise CheckpointError(
            f"reference {called(entry)} is no IP-Adapter that Pictura knows; those with one projection, the "
            "'plus' and the 'full' ones are, those of face recognition are not"
        )
    found = {f"adapter.{name}": tensor for name, tensor in tensors.items()}
    return found | {f"encoder.{name}": tensor for name, tensor in weights(_encoder(entry), "model").items()}


def adapter(entry: Mapping[str, Any]) -> IPAdapter:
    """CheckpointError where the file's names or shapes are no IP-Adapter's."""
    own = _below(entries(entry), "adapter.")
    shapes = {name: tensor.shape for name, tensor in own.items()}
    try:
        return built(lambda: IPAdapter(shapes), own)
    except (KeyError, ValueError, IndexError, ZeroDivisionError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"reference {called(entry)}: the shapes of the IP-Adapter do not fit together; get it again"
        ) from error


def fitting(found: IPAdapter, unet: nn.Module, entry: Mapping[str, Any]) -> None:
    """OtherModel unless the adapter has keys for every cross-attention of `unet`, and for no other."""
    crossing = {m.name: m for m in unet.modules() if isinstance(m, Attention) and m.name.endswith("attn2")}
    wanted = [tuple(crossing[name].to_k.weight.shape) for name in found.ordered(unet)]
    have = [tuple(keys.to_k_ip.weight.shape) for keys in found.ip_adapter.values()]  # type: ignore[union-attr, arg-type]
    if wanted != have:
        raise OtherModel(
            f"reference {called(entry)} is for another model: it has keys for {len(have)} attentions, "
            f"{_sizes(have)}, this model {len(wanted)}, {_sizes(wanted)}"
        )


def embedding(entry: Mapping[str, Any], found: IPAdapter) -> Tensor:
    """What the adapter reads of the entry's picture, and of none: (2, e), or (2, n, e) for patches."""
    config = reading.read_json(_encoder(entry) / "config.json")
    encoder = built(lambda: ClipVision(config, projected=True), _below(entries(entry), "encoder."))
    picture = _squared(open_picture(entry["image"], "reference").convert("RGB"), encoder.side)
    with torch.no_grad():
        if found.patches:
            embedded = torch.cat([encoder(one).hidden[-2] for one in (picture, torch.zeros_like(picture))])
        else:
            projected = encoder(picture).projected
            assert projected is not None
            embedded = torch.cat([projected, torch.zeros_like(projected)])
    if embedded.shape[-1] != found.embedded:
        raise OtherModel(
            f"reference {called(entry)} reads another picture encoder: {found.embedded} numbers, where its "
            f"encoder gives {embedded.shape[-1]}; give the one it was trained with as encoder"
        )
    return embedded


class _Alone(Generic[N]):
    """One network as `formats.networks.build` takes them."""

    def __init__(self, network: N) -> None:
        self.network = network

    def networks(self) -> dict[str, nn.Module]:
        return {"network": self.network}


def built(make: Callable[[], N], tensors: Mapping[str, Entry]) -> N:
    """One network from its tensors."""
    named = {f"network.{name}": entry for name, entry in tensors.items()}
    return networks.build(lambda: _Alone(make()), named).network.eval()


def _encoder(entry: Mapping[str, Any]) -> Path:
    """The folder of the picture encoder."""
    given = entry.get("encoder") or str(Path(entry["model"]).expanduser().parent / "image_encoder")
    place = hub.fetch(given).path if given.startswith("hf://") else Path(given).expanduser()
    return folder_of(place, "reference")


def _below(tensors: Mapping[str, Entry], prefix: str) -> dict[str, Entry]:
    return {
        name.removeprefix(prefix): entry
        for name, entry in tensors.items()
        if name.startswith(prefix) and not name.endswith("position_ids")
    }


def _squared(picture: Image.Image, side: int) -> Tensor:
    """CLIP's own preparation: the shorter side to `side`, the middle cut out, mean and deviation."""
    share = side / min(picture.size)
    width, height = (max(side, int(round(length * share))) for length in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    array = np.asarray(picture.crop((left, top, left + side, top + side)), np.float32) / 255
    array = (array - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return torch.from_numpy(array).permute(2, 0, 1)[None]


def _sizes(shapes: list[tuple[int, ...]]) -> str:
    return " and ".join(sorted({"x".join(map(str, shape)) for shape in shapes})) or "none"
