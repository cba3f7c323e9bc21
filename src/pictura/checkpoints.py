"""Whose files these are and how to read them: every family is asked. Needs no torch."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl, urlencode

from pictura import discovery, families, presets
from pictura.errors import CheckpointError, ParameterError, PresetError, did_you_mean, shown
from pictura.formats import preset, safetensors
from pictura.formats.layout import COMPONENTS, TOKENIZERS, Layout, open_layout
from pictura.formats.recipe import Plan, Recipe

__all__ = ["DIFFUSERS", "Found", "assets", "complete", "find", "missing", "read"]

_CLIP_WORDS = 49408  # in the vocabulary of every published CLIP
CLIP_PADS = {"clip": "<|endoftext|>", "open_clip": "!"}  # what fills a text up
_LAYERS = ("num_layers", "num_single_layers", "num_hidden_layers", "layers_per_block",
           "transformer_layers_per_block", "reverse_transformer_layers_per_block")  # fmt: skip
DIFFUSERS = "diffusers"  # the family of what comes through `bridge`
_ASKED = ("config", "variant", "prediction_type")
_PREDICTIONS = ("epsilon", "v_prediction")
# What other files give away about themselves, for a message that helps.
_KNOWN = {
    "a LoRA; load the model it belongs to and give it as an option": (".lora_down.weight", ".lora_A.weight",
                                                                       ".lora.down.weight", ".hada_w1_a"),
    "a ControlNet; load the model it belongs to and give it as an option": ("input_hint_block.0.weight",
                                                                             "controlnet_cond_embedding.conv_in.weight"),
    "FLUX.2": ("double_stream_modulation_img.lin.weight",),
    "Chroma": ("distilled_guidance_layer.in_proj.bias",),
    "Qwen-Image": ("txt_norm.weight",),
    "Z-Image": ("cap_pad_token",),
    "PixArt": ("adaln_single.linear.weight", "t_block.1.weight"),
    "Wan": ("head.modulation",),
    "Lumina": ("cap_embedder.0.weight",),
    "AuraFlow": ("double_layers.0.attn.w2q.weight",),
    "a CLIP text encoder alone": ("text_model.embeddings.token_embedding.weight",),
    "a T5 text encoder alone": ("encoder.block.0.layer.0.SelfAttention.q.weight",),
    "an autoencoder alone": ("decoder.up.0.block.0.conv1.weight",),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Found:
    """A model where it lies, and how to read it. name: how pictures record it; commit: of the hub's
    repository."""

    name: str
    layout: Layout
    recipe: Recipe
    commit: str | None = None
    sha256: str | None = None


def find(
    given: str | os.PathLike[str],
    *,
    config: str | os.PathLike[str] | None = None,
    variant: str | None = None,
    prediction_type: str | None = None,
    load_weights: bool = True,
) -> Found:
    """The model called `given`, what it lacks taken from `config`. See `TextToImage.from_preset`.

    What these say may also stand behind the name, "file.safetensors?config=folder&variant=fp16", which is how
    pictures record it. PresetError, CheckpointError.
    """
    place, said = _asked(given)
    for name, value in (("config", config), ("variant", variant), ("prediction_type", prediction_type)):
        if value is not None:
            said[name] = os.fspath(value)
    source = presets.resolve(place, variant=said.get("variant"))
    layout = open_layout(source.path, root=source.root, variant=said.get("variant"))
    extra = None
    if "config" in said:
        more = presets.resolve(said["config"])
        extra = open_layout(more.path, root=more.root)
        said["config"] = more.name
    recipe = read(layout, extra, load_weights=load_weights)
    if "prediction_type" in said:
        recipe = _predicting(recipe, said["prediction_type"])
    name = f"{source.name}?{urlencode(said)}" if said else source.name
    return Found(name=name, layout=layout, recipe=recipe, commit=source.commit, sha256=source.sha256)


def read(layout: Layout, extra: Layout | None = None, *, load_weights: bool = True) -> Recipe:
    """How to make the model in `layout`; what it lacks is taken from `extra`.

    PresetError where no family knows it, CheckpointError where files are unsound or a part is missing.
    """
    if layout.kind == "pictura":
        return _ours(layout, load_weights)
    for module in _modules():
        alone: Recipe | None = module.recognise(layout)
        if alone is not None and extra is not None:
            _agree(alone, module.plan(_configs(extra)), layout, extra)
            completed: Recipe = module.recognise(layout, extra)
            return completed
        if alone is not None:
            return alone
    if layout.kind == "diffusers" and isinstance(layout.index.get("_class_name"), str):
        return _bridged(layout)
    raise PresetError(_unknown(layout))


def assets(recipe: Recipe) -> dict[str, bytes]:
    """The tokenizers as families take them, each one JSON of the library `tokenizers`.

    CLIP's own vocabulary is at hand where a file brings none; T5's is not, so its tokenizer may be missing.
    """
    if recipe.plan is None:
        return {}
    from pictura.text import tokenizer_files

    found = {name: tokenizer_files.from_files(files) for name, files in recipe.tokenizers.items()}
    for name, pad in _at_hand(recipe, recipe.plan).items():
        found.setdefault(name, tokenizer_files.clip(pad))
    return found


def missing(recipe: Recipe) -> list[str]:
    """Components and tokenizers that neither the files nor `config` nor Pictura itself hold."""
    known = _at_hand(recipe, recipe.plan) if recipe.plan else {}
    return [name for name in recipe.missing if name not in known]


def _at_hand(recipe: Recipe, plan: Plan) -> dict[str, str]:
    """The tokenizers that Pictura can make itself, and what they fill a text up with."""
    found = {}
    for name, kind in plan.tokenizers.items():
        encoder = recipe.architecture.get(name.replace("tokenizer", "text_encoder"), {})
        if kind in CLIP_PADS and encoder.get("vocab_size") == _CLIP_WORDS:
            found[name] = CLIP_PADS[kind]
    return found


def complete(recipe: Recipe, layout: Layout, *, tokenizers: bool = True) -> dict[str, bytes]:
    """The tokenizers of a model that can draw; CheckpointError where something is missing without which it
    cannot, or a configuration speaks of more layers than there are tensors.

    tokenizers: whether one that is missing counts.
    """
    for name, config in recipe.architecture.items():
        if isinstance(config, Mapping):
            _believable(name, config, recipe, layout)
    found = assets(recipe)
    plan = recipe.plan
    lacking = [name for name in (plan.required if plan else ()) if name not in recipe.architecture]
    if tokenizers and layout.kind in ("diffusers", "files"):  # presets may be networks alone
        lacking += [name for name in (plan.tokenizers if plan else ()) if name not in found]
    if lacking:
        raise CheckpointError(
            f"{str(layout.path)!r}, a {recipe.family} model, has no {' and no '.join(lacking)}; give "
            "config=DIR, a folder that holds what is missing"
        )
    return found


def _believable(component: str, config: Mapping[str, Any], recipe: Recipe, layout: Layout) -> None:
    """Every layer has a tensor: a configuration of a billion layers is refused before one is built."""
    there = sum(name.startswith(f"{component}.") for name in recipe.entries)
    for key in _LAYERS:
        said = config.get(key)
        layers = max((one for one in _flat(said) if type(one) is int), default=0)
        if layers > there:
            raise CheckpointError(
                f"{str(layout.path)!r}: {key} of its {component} is {layers}, but there are {there} tensors; "
                "its configuration is another model's"
            )


def _flat(value: object) -> Iterator[object]:
    if isinstance(value, (list, tuple)):
        for inner in value:
            yield from _flat(inner)
    else:
        yield value


def _asked(given: str | os.PathLike[str]) -> tuple[str | os.PathLike[str], dict[str, str]]:
    """`given` without what stands behind its "?", and that by name."""
    place, mark, query = os.fspath(given).partition("?")
    if not mark or os.path.lexists(given):
        return given, {}
    said = dict(parse_qsl(query, keep_blank_values=True))
    for name in said:
        if name not in _ASKED:
            raise PresetError(f"preset {shown(given)} asks for {shown(name)}; {did_you_mean(name, _ASKED)}")
    return place, said


def _predicting(recipe: Recipe, kind: str) -> Recipe:
    scheduler = recipe.architecture.get("scheduler", {})
    if "beta_start" not in scheduler or kind not in _PREDICTIONS:
        raise ParameterError(
            f"prediction_type {shown(kind)} does not fit a model of {recipe.family}; "
            f"{' and '.join(_PREDICTIONS)} "
            "are for Stable Diffusion 1, 2 and XL",
            parameter="prediction_type",
        )
    changed = {**recipe.architecture, "scheduler": {**scheduler, "prediction_type": kind}}
    return replace(recipe, architecture=changed)


def _bridged(layout: Layout) -> Recipe:
    """A pipeline that diffusers may know; its tensors are listed to know the files that it is made of."""
    parts = [name for name, said in layout.index.items() if isinstance(said, list) and any(said)]
    entries = {
        f"{part}.{name}": entry
        for part in parts
        for path in sorted((layout.path / part).glob("*.safetensors"))
        for name, entry in safetensors.header(path, root=layout.root).items()
    }
    pipeline = str(layout.index["_class_name"])
    return Recipe(family=DIFFUSERS, architecture={"pipeline": pipeline}, entries=entries)


def _configs(layout: Layout) -> dict[str, Any]:
    return {name: config for name in COMPONENTS if (config := layout.config(name)) is not None}


def _agree(alone: Recipe, plan: Plan, layout: Layout, extra: Layout) -> None:
    """CheckpointError where the files are of another version than the folder that completes them."""
    body = "unet" if "unet" in plan.required else "transformer"
    if alone.plan and extra.config(body) is not None and plan.version != alone.plan.version:
        raise CheckpointError(
            f"{str(layout.path)!r} looks like {alone.family} {alone.plan.version}, but {str(extra.path)!r} "
            f"describes {plan.version}; give the config of the same version"
        )


def _ours(layout: Layout, load_weights: bool) -> Recipe:
    config = preset.read(layout.path, root=layout.root)
    module = next((one for one in _modules() if one.FAMILY == config.family), None)
    if module is None and config.family not in families.names():
        hint = did_you_mean(config.family, families.names())
        raise PresetError(f"preset {str(layout.path)!r} has unknown family {shown(config.family)}; {hint}")
    entries = layout.weights() if load_weights else {}
    plan = module.plan(config.architecture) if module else None
    files = {name: layout.tokenizer(name) for name in TOKENIZERS}
    return Recipe(
        family=config.family,
        architecture=config.architecture,
        entries=entries,
        plan=plan,
        tokenizers={
            name: {key: layout.read(path) for key, path in found.items()}
            for name, found in files.items()
            if found
        },
        defaults=config.defaults,
        provenance=config.provenance,
    )


def _modules() -> Iterator[ModuleType]:
    """`checkpoint.py` of every family that reads the files of others; of other packages by entry points."""
    for target in discovery.found(
        "families", "FAMILY", inside="checkpoint", group="pictura.checkpoints"
    ).values():
        yield importlib.import_module(target.partition(":")[0])


def _unknown(layout: Layout) -> str:
    if layout.kind == "files":
        names = [name for entries in layout.files.values() for name in entries]
        for kind, marks in _KNOWN.items():
            if any(name.endswith(marks) for name in names):
                return (
                    f"{str(layout.path)!r} looks like {kind}, which is not a model that Pictura can "
                    "load by itself"
                )
        few = ", ".join(shown(name) for name in sorted(names)[:3]) or "nothing"
        place = f"{str(layout.path)!r}" + (" has no config.json and" if layout.path.is_dir() else "")
        return f"{place} is of no family that Pictura knows; its tensors are called {few}"
    said = layout.index.get("_class_name") or layout.index.get("class_name") or _classes(layout)
    return (
        f"{str(layout.path)!r} holds {shown(said)}, which is of no family that Pictura has; choose "
        "another model"
    )


def _classes(layout: Layout) -> Mapping[str, Any]:
    found = {name: layout.config(name) for name in ("unet", "transformer")}
    return {name: config.get("_class_name") for name, config in found.items() if config}
