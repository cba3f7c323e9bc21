"""LoRA files: whatever spelling a tool wrote, as changes of named layers. Needs no torch.

    unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight            diffusers
    base_model.model.down_blocks.0...to_q.lora_A.weight                                      peft
    unet.down_blocks.0...attn1.processor.to_q_lora.down.weight                               old diffusers
    lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight    kohya
    lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight              kohya, XL
    diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight                               the makers'

A name with underscores for dots cannot be taken apart; so every layer of the model is spelled in all these
ways, and the file's names are looked up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pictura.errors import CheckpointError, OtherModel, shown
from pictura.formats import safetensors
from pictura.formats.rules import Rule
from pictura.formats.safetensors import Entry

__all__ = ["Change", "Layer", "read", "spellings"]

# What stands behind a layer's name, as the roles that the tensors have.
_ROLES = {
    "lora_A.weight": "down", "lora_A.default.weight": "down", "lora.down.weight": "down",
    "lora_down.weight": "down", "down.weight": "down", "lora_linear_layer.down.weight": "down",
    "lora_B.weight": "up", "lora_B.default.weight": "up", "lora.up.weight": "up",
    "lora_up.weight": "up", "up.weight": "up", "lora_linear_layer.up.weight": "up",
    "lora_mid.weight": "core", "alpha": "alpha",
    "dora_scale": "magnitude", "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude", "lora_magnitude_vector.default.weight": "magnitude",
    **{name: name for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "lokr_w1", "lokr_w2",
                               "lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b", "hada_t1", "hada_t2",
                               "lokr_t2")},
}  # fmt: skip
_NEEDED = ({"down", "up"}, {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"})
_KOHYA = {
    "unet": ("lora_unet_", "lycoris_"),
    "transformer": ("lora_unet_", "lora_transformer_", "lycoris_"),
    "text_encoder": ("lora_te_", "lora_te1_"),
    "text_encoder_2": ("lora_te2_",),
    "text_encoder_3": ("lora_te3_",),
}
_OLD = {"to_q": "to_q_lora", "to_k": "to_k_lora", "to_v": "to_v_lora", "to_out.0": "to_out_lora"}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer of the model. share: which rows of a layer in the file it has, (first, last, of how many), in
    the parts by which the file's rows are dealt out; None where it has all."""

    component: str
    name: str
    share: tuple[int, int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a file says of one of its layers: tensors by role, and the model's layers that it is for."""

    name: str
    layers: tuple[Layer, ...]
    tensors: Mapping[str, Entry] = field(default_factory=dict)


def spellings(
    names: Mapping[str, Iterable[str]], originals: Mapping[str, Iterable[Rule]]
) -> dict[str, tuple[Layer, ...]]:
    """The layers that each spelling means. names: of layers, by component; originals: the rules by which a
    component's original names become ours."""
    found: dict[str, tuple[Layer, ...]] = {}
    for component, layers in names.items():
        body = component in ("unet", "transformer")
        kohya = _KOHYA.get(component, ())
        for name in layers:
            here = (Layer(component=component, name=name),)
            for spelling in _dotted(name):
                found |= {f"{component}.{spelling}": here}
                if body:
                    found |= {spelling: here, f"base_model.model.{spelling}": here}
            found |= {f"{prefix}{name.replace('.', '_')}": here for prefix in kohya}
            if not body:  # newer encoders are saved without the outermost part
                found.setdefault(f"{component}.text_model.{name}", here)
        for theirs, ours in _original(component, list(layers), originals.get(component, ())).items():
            found |= {f"{prefix}{theirs.replace('.', '_')}": ours for prefix in kohya}
            found |= {f"{prefix}{theirs}": ours for prefix in ("diffusion_model.", "model.diffusion_model.")}
    return found


def read(path: Path, known: Mapping[str, tuple[Layer, ...]]) -> list[Change]:
    """The file's changes; CheckpointError where it is no LoRA, OtherModel for one of another model.

    Both name the file alone: where it lies is not everybody's business.
    """
    file = f"lora {shown(path.name)}"
    entries = safetensors.header(path)
    groups: dict[str, dict[str, Entry]] = {}
    for name, entry in entries.items():
        layer, role = _taken_apart(name)
        if role is None:
            raise CheckpointError(
                f"tensor {shown(name)} in {file} is of no kind of LoRA that Pictura knows; "
                "LoRA, LoHa, LoKr and DoRA are"
            )
        groups.setdefault(layer, {})[role] = entry
    strange = [layer for layer in groups if layer not in known]
    if len(strange) == len(groups):
        few = ", ".join(shown(layer) for layer in strange[:2]) or "nothing"
        raise OtherModel(f"{file} is no LoRA for this model; it is about {few}")
    if strange:
        raise OtherModel(
            f"{file} changes {shown(strange[0])}, which this model does not have; "
            "it belongs to another version of the model"
        )
    changes = [Change(name=layer, layers=known[layer], tensors=tensors) for layer, tensors in groups.items()]
    for change in changes:
        _complete(change, file)
    return _once(changes)


def _taken_apart(name: str) -> tuple[str, str | None]:
    """(layer, role); of ends that fit the longest."""
    for end in sorted(_ROLES, key=len, reverse=True):
        if name.endswith(f".{end}"):
            return name.removesuffix(f".{end}"), _ROLES[end]
    return name, None


def _complete(change: Change, file: str) -> None:
    roles = change.tensors.keys()
    kronecker = {"lokr_w1", "lokr_w2"} if any(role.startswith("lokr") for role in roles) else set()
    whole = {role[:-2] if role.startswith("lokr") and role[-1] in "ab" else role for role in roles}
    if not any(needed <= roles for needed in _NEEDED) and not (kronecker and kronecker <= whole):
        raise CheckpointError(
            f"{file} is incomplete: {shown(change.name)} has only {', '.join(sorted(roles))}"
        )


def _once(changes: list[Change]) -> list[Change]:
    """Without what is there a second time in another spelling, as some tools save it."""
    found: dict[tuple[Layer, ...], Change] = {}
    for change in changes:
        found.setdefault(change.layers, change)
    return list(found.values())


def _dotted(name: str) -> Iterator[str]:
    yield name
    for ours, old in _OLD.items():
        if name.endswith(f".{ours}"):
            yield f"{name.removesuffix(ours)}processor.{old}"


def _original(component: str, names: list[str], rules: Iterable[Rule]) -> dict[str, tuple[Layer, ...]]:
    """Layers by their original names: one of theirs may be several of ours, one under the other."""
    found: dict[str, dict[int, Layer]] = {}
    back: dict[str, tuple[Rule, int]] = {}
    for rule in rules:
        if not rule.old:
            back |= {
                ours.removesuffix(".weight"): (rule, at)
                for at, ours in enumerate(rule.ours)
                if not ours.endswith(".bias")
            }
    for name in names:
        head = name
        while head not in back and "." in head:
            head = head.rpartition(".")[0]
        if head not in back:
            continue
        rule, at = back[head]
        theirs = rule.theirs.removesuffix(".weight") + name[len(head) :]
        shares = rule.shares or (1,) * len(rule.ours)
        share = (sum(shares[:at]), sum(shares[: at + 1]), sum(shares)) if len(shares) > 1 else None
        found.setdefault(theirs, {})[at] = Layer(component=component, name=name, share=share)
    return {theirs: tuple(parts[at] for at in sorted(parts)) for theirs, parts in found.items()}
