"""A model in another form: a Pictura preset, a folder of diffusers', or one file in its original layout.

Tensors go from file to file one at a time and keep their bits, whatever their number: no network is built.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pictura import checkpoints
from pictura.errors import CheckpointError, FileError, ParameterError, PresetError, did_you_mean, shown
from pictura.formats import preset, writing
from pictura.formats.layout import CONFIG, INDEX, STEMS
from pictura.formats.recipe import Plan, Recipe
from pictura.formats.rules import export
from pictura.formats.safetensors import Entry, torch_dtype
from pictura.formats.writing import Pending
from pictura.text.tokenizer_files import to_files

if TYPE_CHECKING:
    import torch

__all__ = ["FORMS", "convert"]

FORMS = ("pictura", "diffusers", "single-file")
Assets = Mapping[str, bytes]
_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def convert(
    source: str | os.PathLike[str],
    target: Path,
    to: str = "pictura",
    *,
    config: str | os.PathLike[str] | None = None,
    variant: str | None = None,
    dtype: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the model called `source` to `target` in the form `to`, and return where it is.

    dtype: of its floating-point weights; None keeps what they are. Whole or not at all: FileError where
    something is in the way, PresetError where the form does not suit the family, and whatever `find` raises.
    """
    if to not in FORMS:
        raise ParameterError(f"form {shown(to)} is unknown; {did_you_mean(to, FORMS)}", parameter="to")
    if dtype is not None and dtype not in _DTYPES:
        raise ParameterError(
            f"dtype {shown(dtype)} is unknown; {did_you_mean(dtype, _DTYPES)}", parameter="dtype"
        )
    found = checkpoints.find(source, config=config, variant=variant)
    recipe = found.recipe
    assets = checkpoints.complete(recipe, found.layout, tokenizers=to != "single-file")
    wanted = torch_dtype(_DTYPES[dtype]) if dtype else None
    if to == "pictura":
        _pictura(recipe, assets, found.name, target, wanted, overwrite)
        return target
    if recipe.plan is None:
        raise PresetError(f"models of {recipe.family} exist as Pictura presets only; convert to pictura")
    if to == "diffusers":
        _diffusers(recipe, recipe.plan, assets, target, wanted, overwrite)
    else:
        target = _file(recipe, recipe.plan, target, wanted, overwrite)
    return target


def _pictura(
    recipe: Recipe, assets: Assets, name: str, target: Path, dtype: torch.dtype | None, overwrite: bool
) -> None:
    tensors = {key: _pending((entry,), dtype) for key, entry in recipe.entries.items()}
    provenance = (
        {**recipe.provenance} if recipe.plan is None else {"converted_from": name, **recipe.provenance}
    )
    config = preset.Config(
        family=recipe.family,
        architecture=recipe.architecture,
        defaults=recipe.defaults,
        provenance=provenance,
    )
    count = sum(math.prod(entry.shape) for entry in recipe.entries.values())
    readme = preset.card(target.name, config, count, writing.live_digest(tensors))
    files = {f"{key}.json": content for key, content in assets.items()}
    preset.write(target, config, tensors, readme, files=files, overwrite=overwrite)


def _diffusers(
    recipe: Recipe, plan: Plan, assets: Assets, target: Path, dtype: torch.dtype | None, overwrite: bool
) -> None:
    index: dict[str, Any] = {"_class_name": plan.pipeline, "_diffusers_version": "0.31.0"}
    with preset.fresh(target, overwrite=overwrite, mark=INDEX) as folder:
        for component, config in recipe.architecture.items():
            if not isinstance(config, Mapping):
                index[component] = config  # such as force_zeros_for_empty_prompt
                continue
            place = folder / component
            place.mkdir()
            index[component] = _class(component, config)
            name = "scheduler_config.json" if component == "scheduler" else CONFIG
            _json(place / name, config)
            if component in STEMS:
                tensors = dict(_renamed(_below(recipe, component), component, dtype))
                writing.write(place, tensors, STEMS[component])
        for component, content in assets.items():
            kind = "T5TokenizerFast" if plan.tokenizers[component] == "t5" else "CLIPTokenizer"
            index[component] = ["transformers", kind]
            (folder / component).mkdir()
            own = recipe.tokenizers.get(component, {})
            for name, data in (own if len(own) > 1 else to_files(content, kind)).items():
                (folder / component / name).write_bytes(data)
        for component in _absent(recipe, plan):
            index[component] = [None, None]
        _json(folder / INDEX, index)


def _file(recipe: Recipe, plan: Plan, target: Path, dtype: torch.dtype | None, overwrite: bool) -> Path:
    """One file with every part under its first prefix; configurations and tokenizers have no place in it."""
    target = target if target.suffix == ".safetensors" else target.with_name(f"{target.name}.safetensors")
    if overwrite:
        raise FileError(f"{str(target)!r}: a file of weights is never overwritten; choose another name")
    tensors: dict[str, Pending] = {}
    for part in plan.parts:
        if part.component in recipe.architecture:
            theirs = export(_below(recipe, part.component), part.rules(recipe.architecture[part.component]))
            tensors |= {part.prefixes[0] + name: _pending(parts, dtype) for name, parts in theirs.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    writing.write(target.parent, tensors, target.stem, shard=2**62)
    return target


def _below(recipe: Recipe, component: str) -> dict[str, Entry]:
    head = f"{component}."
    return {name[len(head) :]: entry for name, entry in recipe.entries.items() if name.startswith(head)}


def _renamed(
    entries: Mapping[str, Entry], component: str, dtype: torch.dtype | None
) -> Iterator[tuple[str, Pending]]:
    for name, entry in entries.items():
        yield name, _pending((entry,), dtype)


def _pending(parts: tuple[Entry, ...], dtype: torch.dtype | None) -> Pending:
    scaled = any(kind == "scale" for part in parts for kind, _ in part.steps)
    own = torch_dtype("BF16" if scaled else parts[0].dtype)  # eight bits do not hold the product
    if any(part.dtype != parts[0].dtype for part in parts):
        raise CheckpointError(
            f"parts of one tensor have the dtypes {', '.join(sorted({part.dtype for part in parts}))}; "
            "convert with --dtype"
        )
    return Pending(parts, dtype if dtype is not None and own.is_floating_point else own)


def _class(component: str, config: Mapping[str, Any]) -> list[str]:
    """[library, class] of a component, as model_index.json lists it."""
    if component.startswith("text_encoder"):
        first = (config.get("architectures") or ["CLIPTextModel"])[0]
        return ["transformers", str(first)]
    return ["diffusers", str(config["_class_name"])]


def _absent(recipe: Recipe, plan: Plan) -> list[str]:
    """What the pipeline could have and this model has not."""
    extras = ["safety_checker", "feature_extractor"] if plan.pipeline == "StableDiffusionPipeline" else []
    missing = [name for name in plan.optional if name not in recipe.architecture]
    return extras + missing + [name.replace("text_encoder", "tokenizer") for name in missing]


def _json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")
