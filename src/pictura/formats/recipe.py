"""How to make a model of a family out of somebody's files: found by a family, followed by whoever loads.

A family's `checkpoint.py` lists its parts and says what the files do not; `gather` does what all have in
common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pictura.formats.encoders import clip, t5
from pictura.formats.layout import Layout
from pictura.formats.parts import Part, find
from pictura.formats.rules import Rule, named, table, translate
from pictura.formats.safetensors import Entry

__all__ = ["Gathered", "Plan", "Recipe", "follow", "gather", "of_class"]

Tokenizer = Mapping[str, bytes]  # by the usual names of its files


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a family knows of one of its versions. pipeline: the class in diffusers. parts: its networks, as
    single files hold them. tokenizers: by component, "clip", "open_clip" or "t5". required: without which
    nothing can be drawn.
    """

    version: str
    pipeline: str
    parts: Sequence[Part]
    tokenizers: Mapping[str, str]
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """architecture: configurations by component, as the family's `from_config` takes them. entries: where
    each tensor "<network>.<parameter>" lies. tokenizers: their files as bytes. unused: what a single file
    holds beside them. plan: None for a family that nobody else has files of.
    """

    family: str
    architecture: Mapping[str, Any]
    entries: Mapping[str, Entry]
    plan: Plan | None = None
    tokenizers: Mapping[str, Tokenizer] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """Components and tokenizers that neither the files nor `config` hold."""
        if self.plan is None:
            return ()
        wanted = (*self.plan.required, *self.plan.optional)
        networks = [name for name in wanted if name not in self.architecture]
        return (*networks, *(name for name in self.plan.tokenizers if not self.tokenizers.get(name)))


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Configurations and tensors by component. unused: what a single file holds beside them."""

    configs: dict[str, Any]
    entries: dict[str, Entry]
    layouts: tuple[Layout, ...]
    unused: tuple[str, ...] = ()

    def tokenizer(self, name: str) -> Tokenizer:
        """The files of the first layout that has any."""
        for layout in self.layouts:
            files = layout.tokenizer(name)
            if files:
                return {key: layout.read(path) for key, path in files.items()}
        return {}


def follow(family: str, plan: Plan, gathered: Gathered) -> Recipe:
    """The recipe for what was gathered."""
    return Recipe(
        family=family,
        plan=plan,
        architecture=gathered.configs,
        entries=gathered.entries,
        tokenizers={name: files for name in plan.tokenizers if (files := gathered.tokenizer(name))},
        unused=gathered.unused,
    )


def gather(layout: Layout, extra: Layout | None, parts: Sequence[Part]) -> Gathered:
    """`parts` out of `layout`, and what it lacks out of `extra`, a folder of diffusers' or more single files.

    CheckpointError where something does not fit.
    """
    layouts = tuple(one for one in (layout, extra) if one is not None)
    configs: dict[str, Any] = {}
    entries: dict[str, Entry] = {}
    for part in parts:
        for one in layouts:
            got = _part(one, part, layouts)
            if got is not None:
                configs[part.component], more = got
                entries |= more
                break
    for one in reversed(layouts):
        scheduler = one.config("scheduler")
        if scheduler is not None:
            configs["scheduler"] = scheduler
        for name, value in one.index.items():
            if one.kind == "diffusers" and isinstance(value, bool):  # such as force_zeros_for_empty_prompt
                configs[name] = value
    used = {(entry.file, entry.start) for entry in entries.values()}
    return Gathered(configs=configs, entries=entries, layouts=layouts, unused=_unused(layout, used))


def of_class(layout: Layout, component: str, name: str) -> bool:
    """Whether a folder of diffusers has this component, and of this class."""
    config = layout.config(component)
    return config is not None and config.get("_class_name", name) == name


def _part(
    layout: Layout, part: Part, layouts: Sequence[Layout]
) -> tuple[dict[str, Any], dict[str, Entry]] | None:
    """(configuration, tensors) of `part` in `layout`; None where it has none."""
    config = next((known for one in layouts if (known := one.config(part.component)) is not None), None)
    if layout.kind == "files":
        found = find(layout.files, part)
        return None if found is None else found.read(config)
    own = layout.config(part.component)
    if own is None:
        return None
    entries = layout.weights(part.component)
    if layout.kind == "pictura":
        return own, {name: entry for name, entry in entries.items() if name.startswith(f"{part.component}.")}
    return own, folder_entries(entries, part.component)


def folder_entries(entries: Mapping[str, Entry], component: str) -> dict[str, Entry]:
    """The tensors of a diffusers folder by our names: older spellings and useless buffers are gone."""
    kept = {name: entry for name, entry in entries.items() if not name.endswith("position_ids")}
    if component.startswith("text_encoder"):
        first = any(name.startswith("encoder.block.") for name in kept)
        kept = translate(kept, table(t5({}) if first else clip({})))
    elif component == "vae":
        kept = translate(kept, table(_vae_rules(kept)))
    return {f"{component}.{name}": entry for name, entry in kept.items()}


_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _vae_rules(entries: Mapping[str, Entry]) -> list[Rule]:
    rules = list(named({name: name for name in ("encoder", "decoder", "quant_conv", "post_quant_conv")}))
    for side in ("encoder", "decoder"):
        attention = f"{side}.mid_block.attentions.0"
        rules += [
            Rule(f"{attention}.{old}", (f"{attention}.{new}",), "pointwise") for old, new in _OLD.items()
        ]
    return rules


def _unused(layout: Layout, used: set[tuple[Path, int]]) -> tuple[str, ...]:
    names = [
        name
        for entries in (layout.files.values() if layout.single else ())
        for name, entry in entries.items()
        if (entry.file, entry.start) not in used
    ]
    return tuple(sorted(names))
