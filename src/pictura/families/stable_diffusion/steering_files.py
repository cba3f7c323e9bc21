"""ControlNets, T2I-Adapters and IP-Adapters in the files people have: folders as diffusers writes them, and
single files in diffusers' names or in the original ones. Recognised by names and shapes. Needs no torch.

    control_model.input_blocks.1.0.in_layers.0.weight       ControlNet, original; also without the prefix
    down_blocks.0.resnets.0.norm1.weight                    ControlNet, diffusers
    body.2.in_conv.weight                                   T2I-Adapter, original
    adapter.body.1.in_conv.weight                           T2I-Adapter, diffusers

What shapes do not tell (heads of attention, groups of norms) a ControlNet has from the model it steers, of
which it is a copy. A JSON file beside it with the same name says the rest, in the keys of diffusers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isqrt
from pathlib import Path
from typing import Any, NamedTuple

from pictura.errors import CheckpointError, OtherModel, PresetError, shown
from pictura.families.stable_diffusion.checkpoint import way_down, way_down_config
from pictura.formats import hub, reading, safetensors
from pictura.formats.parts import Config, Part, Shapes, count, find
from pictura.formats.rules import Rule, named, table, translate
from pictura.formats.safetensors import Entry

__all__ = ["Source", "called", "control", "folder_of", "kind_of", "same", "weights"]

_ADDED = {"middle_block_out.0": "controlnet_mid_block"}
_HINT, _CONV_IN = "input_hint_block", "controlnet_cond_embedding.conv_in.weight"
_BODY, _LIGHT = "body.0.block1.weight", "body.0.body.0.block1.weight"  # T2I-Adapter, original
_LEVEL = "adapter.body.0.resnets.0.block1.weight"
_LARGEST = 2**20  # no width of a real network is near it


class Source(NamedTuple):
    """A steering network as diffusers describes it, and its tensors by our names."""

    config: dict[str, Any]
    entries: dict[str, Entry]


def control(model: str, base: Mapping[str, Any]) -> Source:
    """The ControlNet or T2I-Adapter at `model`, a folder, a file, or hf://org/name.

    base: the configuration of the UNet that it steers. CheckpointError for a file that is neither, OtherModel
    for another model's.
    """
    place = hub.fetch(model).path if model.startswith("hf://") else Path(model).expanduser()
    if place.is_file():
        return _file(place, base)
    folder = folder_of(place, "control")
    return Source(reading.read_json(folder / "config.json"), weights(folder, "diffusion_pytorch_model"))


def called(entry: Mapping[str, Any]) -> str:
    """An entry's network by its name alone: where it lies is not everybody's business."""
    return shown(Path(entry["model"]).name)


def kind_of(file: Path) -> str | None:
    """ "control" or "reference", the option that takes a file; None for one that is neither."""
    names = safetensors.header(file)
    if any(name.startswith("image_proj.") for name in names):
        return "reference"
    marks = (_CONV_IN, _LEVEL, _BODY, _LIGHT, *(prefix + CONTROLNET.marker for prefix in CONTROLNET.prefixes))
    return "control" if any(mark in names for mark in marks) else None


def folder_of(place: Path, name: str) -> Path:
    """`place` if it is a folder with a configuration; PresetError otherwise."""
    if not (place / "config.json").is_file():
        known = "give one, a .safetensors file, or hf://org/name" if name == "control" else "give one"
        raise PresetError(f"{name} {shown(place.name)} is no folder with a config.json; {known}")
    return place


def weights(folder: Path, stem: str) -> dict[str, Entry]:
    return dict(safetensors.weights(folder, stem, root=folder))


def same(theirs: Mapping[str, Any], ours: Mapping[str, Any], called: str) -> None:
    """OtherModel unless a ControlNet is for a UNet like this one."""
    for key in ("block_out_channels", "cross_attention_dim", "addition_embed_type"):
        one, other = (tuple(v) if isinstance(v := c[key], list) else v for c in (theirs, ours))
        if one != other:
            raise OtherModel(
                f"control {called} is for another model: its {key} is {shown(one)}, this model's "
                f"{shown(other)}"
            )


def _file(file: Path, base: Mapping[str, Any]) -> Source:
    if file.suffix != ".safetensors":
        raise PresetError(
            f"control {shown(file.name)} is no safetensors file, and others can hold programs; convert it"
        )
    entries = safetensors.header(file)
    if _CONV_IN in entries:
        skeleton = _skeleton(entries)
        if len(skeleton["block_out_channels"]) * skeleton["layers_per_block"] > len(entries):
            raise reading.unsound(file, "its blocks are numbered higher than there are tensors")
        entries = translate(entries, table(_turned(controlnet(skeleton))))
    if _BODY in entries or _LIGHT in entries:
        entries = translate(entries, table(_levels(entries)))
    for part in (CONTROLNET, ADAPTER):
        found = find({file: entries}, part)
        if found is None:
            continue
        config, tensors = found.read()
        if part is CONTROLNET:
            same(config, base, shown(file.name))
            config = {**base, **config}
        elif "adapter_type" not in config:
            xl = base.get("addition_embed_type") == "text_time"
            config["adapter_type"] = "full_adapter_xl" if xl else "full_adapter"
        beside = file.with_suffix(".json")
        said = reading.read_json(beside) if beside.is_file() else {}
        head = f"{part.component}."
        return Source({**config, **said}, {name.removeprefix(head): e for name, e in tensors.items()})
    raise CheckpointError(
        f"{str(file)!r} is no ControlNet or T2I-Adapter that Pictura knows; those of Stable Diffusion 1, 2 "
        "and XL are"
    )


def controlnet(config: Config) -> Iterator[Rule]:
    """A UNet's way down, the picture's way in, and what is added to each skip and to the middle."""
    yield from way_down(config)
    yield from named(_ADDED)
    levels = len(config["block_out_channels"])
    for skip in range(levels * (config["layers_per_block"] + 1)):
        yield Rule(f"zero_convs.{skip}.0", (f"controlnet_down_blocks.{skip}",))
    last = 2 * len(config["conditioning_embedding_out_channels"]) - 1
    for layer in range(last + 1):
        ours = "conv_in" if layer == 0 else "conv_out" if layer == last else f"blocks.{layer - 1}"
        yield Rule(f"{_HINT}.{2 * layer}", (f"controlnet_cond_embedding.{ours}",))


def _controlnet_config(shapes: Shapes) -> dict[str, Any]:
    found = way_down_config(shapes)
    layers = [shapes[f"{_HINT}.{at}.weight"] for at in range(0, count(shapes, _HINT) - 1, 2)]
    depth = found["transformer_layers_per_block"]
    levels = len(found["block_out_channels"])
    blocks = found["layers_per_block"] * (sum(depth) if isinstance(depth, list) else levels * depth)
    guide = shapes.get("time_embed.cond_proj.weight")
    return _plausible(
        {
            "_class_name": "ControlNetModel",
            **found,
            "conditioning_channels": layers[0][1],
            "conditioning_embedding_out_channels": [shape[0] for shape in layers[::2]],
            "time_cond_proj_dim": guide[1] if guide else None,
        },
        blocks <= len(shapes),
    )


def _skeleton(names: Mapping[str, object]) -> dict[str, Any]:
    """As much of a configuration as the rules need, from names of diffusers."""
    levels = range(count(names, "down_blocks"))
    attends = [f"down_blocks.{level}.attentions.0.norm.weight" in names for level in levels]
    return {
        "layers_per_block": count(names, "down_blocks.0.resnets"),
        "block_out_channels": [0 for _ in levels],
        "down_block_types": ["CrossAttnDownBlock2D" if attended else "DownBlock2D" for attended in attends],
        "conditioning_embedding_out_channels": range(
            count(names, "controlnet_cond_embedding.blocks") // 2 + 1
        ),
    }


def _turned(rules: Iterator[Rule]) -> Iterator[Rule]:
    """From our names to theirs."""
    for rule in rules:
        yield Rule(rule.ours[0], (rule.theirs,))


def _levels(names: Mapping[str, object]) -> Iterator[Rule]:
    """T2I-Adapters in the original: light ones say `body` twice, others number residual blocks through, and a
    level begins where the width changes."""
    yield Rule("conv_in", ("adapter.conv_in",))
    blocks = range(count(names, "body"))
    wider = (at for at in blocks if at and f"body.{at}.in_conv.weight" in names)
    layers = next(wider, len(blocks))
    for at in blocks:
        if _LIGHT in names:
            yield Rule(f"body.{at}.body", (f"adapter.body.{at}.resnets",))
            yield Rule(f"body.{at}", (f"adapter.body.{at}",))
        else:
            level, layer = divmod(at, layers)
            yield Rule(f"body.{at}", (f"adapter.body.{level}.resnets.{layer}",))
            yield Rule(f"body.{at}.in_conv", (f"adapter.body.{level}.in_conv",))


def _adapter_config(shapes: Shapes) -> dict[str, Any]:
    """The kind only where it is a light one: the full ones of 1.x and of XL have the same names."""
    light = "adapter.body.0.out_conv.weight" in shapes
    levels, layers = count(shapes, "adapter.body"), count(shapes, "adapter.body.0.resnets")
    last = "out_conv" if light else f"resnets.{layers - 1}.block2"
    widths = [shapes[f"adapter.body.{level}.{last}.weight"][0] for level in range(levels)]
    first = shapes["adapter.body.0.in_conv.weight" if light else "adapter.conv_in.weight"][1]
    # A picture of c colours as squares of f x f has c f^2 channels; three colours, if that can be.
    colours = 3 if first % 3 == 0 and isqrt(first // 3) ** 2 == first // 3 else 1
    kind = {"adapter_type": "light_adapter"} if light else {}
    return _plausible(
        {
            "_class_name": "T2IAdapter",
            "in_channels": colours,
            "channels": widths[:-1] if light else widths,
            "num_res_blocks": layers,
            "downscale_factor": isqrt(first // colours),
            **kind,
        },
        levels * layers <= len(shapes),
    )


def _plausible(config: dict[str, Any], sound: bool) -> dict[str, Any]:
    """`config`; ValueError, for whoever reads it, where it speaks of more than any file holds."""
    for value in config.values():
        numbers = value if isinstance(value, list) else [value]
        sound = sound and all(0 < n <= _LARGEST for n in numbers if type(n) is int)
    if not sound:
        raise ValueError("no such network")
    return config


CONTROLNET = Part(
    component="controlnet",
    marker=f"{_HINT}.0.weight",
    prefixes=("control_model.", ""),
    config=_controlnet_config,
    rules=controlnet,
)
ADAPTER = Part(
    component="t2i_adapter",
    marker=_LEVEL,
    prefixes=("",),
    config=_adapter_config,
    rules=lambda config: (Rule("adapter", ("adapter",)),),
)
