"""Stable Diffusion 1.x, 2.x and XL in the files of others: names, shapes, recognition. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pictura.formats.autoencoder import vae, vae_config
from pictura.formats.encoders import clip, clip_config, open_clip, open_clip_config
from pictura.formats.layout import Layout
from pictura.formats.parts import Config, Part, Shapes, count, find
from pictura.formats.recipe import Plan, Recipe, follow, gather, of_class
from pictura.formats.rules import Rule, named

FAMILY = "stable_diffusion"
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_UP = {"CrossAttnDownBlock2D": "CrossAttnUpBlock2D", "DownBlock2D": "UpBlock2D"}
_HEAD = 64  # the width of an attention head since 2.0; 1.x has eight heads everywhere


def unet(config: Config) -> Iterator[Rule]:
    """Blocks are numbered through in the original, by level here."""
    yield from way_down(config)
    layers, levels = config["layers_per_block"], len(config["block_out_channels"])
    at = 0
    for level, kind in enumerate(config["up_block_types"]):
        ours, attends = f"up_blocks.{level}", "CrossAttn" in kind
        for layer in range(layers + 1):
            yield from _block(f"output_blocks.{at}", ours, layer, attends)
            at += 1
        if level < levels - 1:
            yield Rule(f"output_blocks.{at - 1}.{2 if attends else 1}.conv", (f"{ours}.upsamplers.0.conv",))


def way_down(config: Config) -> Iterator[Rule]:
    """As far as the middle: what a ControlNet has a copy of."""
    layers, levels = config["layers_per_block"], len(config["block_out_channels"])
    yield from named(_ENDS)
    at = 1
    for level, kind in enumerate(config["down_block_types"]):
        ours = f"down_blocks.{level}"
        for layer in range(layers):
            yield from _block(f"input_blocks.{at}", ours, layer, "CrossAttn" in kind)
            at += 1
        if level < levels - 1:
            yield Rule(f"input_blocks.{at}.0.op", (f"{ours}.downsamplers.0.conv",))
            at += 1
    yield from named(_RESNET, theirs="middle_block.0", ours="mid_block.resnets.0")
    yield Rule("middle_block.1", ("mid_block.attentions.0",))
    yield from named(_RESNET, theirs="middle_block.2", ours="mid_block.resnets.1")


def _block(theirs: str, ours: str, layer: int, attends: bool) -> Iterator[Rule]:
    yield from named(_RESNET, theirs=f"{theirs}.0", ours=f"{ours}.resnets.{layer}")
    if attends:
        yield Rule(f"{theirs}.1", (f"{ours}.attentions.{layer}",))


def unet_config(shapes: Shapes) -> dict[str, Any]:
    """The published architectures, as their shapes tell them."""
    found = way_down_config(shapes)
    linear, vector = found["use_linear_projection"], found["projection_class_embeddings_input_dim"]
    up = [_UP[kind] for kind in reversed(found["down_block_types"])]
    heads = [width // _HEAD for width in found["block_out_channels"]]
    return {
        "_class_name": "UNet2DConditionModel",
        **found,
        "out_channels": shapes["out.2.weight"][0],
        "up_block_types": up,
        "attention_head_dim": heads if linear else 8,
        "norm_num_groups": 32,
        "sample_size": 128 if vector else 96 if linear else 64,
        "addition_time_embed_dim": 256 if vector else None,
    }


def way_down_config(shapes: Shapes) -> dict[str, Any]:
    """What shapes tell of a UNet, or of a ControlNet, by the original names of its way down."""
    levels: list[list[int]] = [[]]
    for block in range(1, count(shapes, "input_blocks")):
        if f"input_blocks.{block}.0.op.weight" in shapes:
            levels.append([])
        else:
            levels[-1].append(block)
    depths = [count(shapes, f"input_blocks.{level[0]}.1.transformer_blocks") for level in levels]
    depths[-1] = middle = count(shapes, "middle_block.1.transformer_blocks")
    attends = [f"input_blocks.{level[0]}.1.proj_in.weight" in shapes for level in levels]
    vector = shapes.get("label_emb.0.0.weight")
    return {
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "block_out_channels": [
            shapes[f"input_blocks.{level[0]}.0.out_layers.3.weight"][0] for level in levels
        ],
        "layers_per_block": len(levels[0]),
        "down_block_types": ["CrossAttnDownBlock2D" if attended else "DownBlock2D" for attended in attends],
        "cross_attention_dim": shapes["middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1],
        "transformer_layers_per_block": [depth or 1 for depth in depths] if middle > 1 else 1,
        "use_linear_projection": len(shapes["middle_block.1.proj_in.weight"]) == 2,
        "addition_embed_type": "text_time" if vector else None,
        "projection_class_embeddings_input_dim": vector[1] if vector else None,
    }


def _last_block(shapes: Shapes) -> tuple[str, ...]:
    """2.x reads the last but one layer of a complete OpenCLIP, so the last and the projection are left
    out."""
    if "text_projection" not in shapes:
        return ()
    last = count(shapes, "transformer.resblocks") - 1
    return ("text_projection", f"transformer.resblocks.{last}")


_POSITIONS = ("embeddings.position_ids", "text_model.embeddings.position_ids", "logit_scale")
_TOKENS = "text_model.embeddings.token_embedding.weight"
UNET = Part(
    component="unet",
    marker="input_blocks.0.0.weight",
    prefixes=("model.diffusion_model.", ""),
    config=unet_config,
    rules=unet,
)
VAE = Part(
    component="vae",
    marker="decoder.up.0.block.0.conv1.weight",
    prefixes=("first_stage_model.", "vae.", ""),
    config=vae_config,
    rules=vae,
    ignored=("loss", "model_ema"),
)


def _clip_l(*prefixes: str) -> Part:
    return Part(
        component="text_encoder",
        marker=_TOKENS,
        prefixes=(*prefixes, ""),
        config=clip_config,
        rules=clip,
        width=768,
        ignored=(*_POSITIONS, "text_projection"),
    )


def _open_clip(component: str, *prefixes: str, **more: Any) -> Part:
    return Part(
        component=component,
        marker="positional_embedding",
        prefixes=prefixes,
        config=open_clip_config,
        rules=open_clip,
        ignored=("logit_scale", "attn_mask"),
        **more,
    )


PARTS: Mapping[str, tuple[Part, ...]] = {
    "1.x": (UNET, VAE, _clip_l("cond_stage_model.transformer.")),
    "2.x": (UNET, VAE, _open_clip("text_encoder", "cond_stage_model.model.", unused=_last_block)),
    "xl": (
        UNET,
        VAE,
        _clip_l("conditioner.embedders.0.transformer."),
        _open_clip("text_encoder_2", "conditioner.embedders.1.model.", "conditioner.embedders.0.model."),
    ),
}
_SCALING = {"1.x": 0.18215, "2.x": 0.18215, "xl": 0.13025}
_BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
_SCHEDULERS: Mapping[str, dict[str, Any]] = {
    "1.x": {"_class_name": "PNDMScheduler", **_BETAS, "set_alpha_to_one": False, "skip_prk_steps": True,
            "clip_sample": False, "prediction_type": "epsilon"},
    "2.x": {"_class_name": "DDIMScheduler", **_BETAS, "set_alpha_to_one": False, "clip_sample": False,
            "prediction_type": "v_prediction"},
    "xl": {"_class_name": "EulerDiscreteScheduler", **_BETAS, "timestep_spacing": "leading",
           "prediction_type": "epsilon"},
}  # fmt: skip


def version(config: Config) -> str:
    """ "1.x", "2.x" or "xl", from the configuration of the U-Net."""
    if config.get("addition_embed_type") == "text_time":
        return "xl"
    return "2.x" if config.get("use_linear_projection") else "1.x"


def plan(configs: Config) -> Plan:
    """What belongs to a model with these configurations by component."""
    body = configs.get("unet", {})
    kind = version(body)
    xl = kind == "xl"
    width = configs.get("text_encoder_2", {}).get("hidden_size")
    refiner = width is not None and width == body.get("cross_attention_dim")
    encoders = (
        ("text_encoder_2",) if refiner else ("text_encoder", "text_encoder_2") if xl else ("text_encoder",)
    )
    return Plan(
        version=kind,
        pipeline="StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline",
        parts=PARTS[kind],
        tokenizers={
            name.replace("text_encoder", "tokenizer"): "open_clip"
            if kind == "2.x" or "_2" in name
            else "clip"
            for name in encoders
        },
        required=("unet", "vae", *encoders),
    )


def recognise(layout: Layout, extra: Layout | None = None) -> Recipe | None:
    """How to read `layout` as this family, what it lacks taken from `extra`; None where it is none of
    ours."""
    found = find(layout.files, UNET) if layout.kind == "files" else None
    if found is None and not of_class(layout, "unet", "UNet2DConditionModel"):
        return None
    known = layout.config("unet") or (extra.config("unet") if extra else None)
    kind = version(found.read()[0] if found is not None and known is None else known or {})
    gathered = gather(layout, extra, PARTS[kind])
    _complete(gathered.configs, kind, layout)
    return follow(FAMILY, plan(gathered.configs), gathered)


def _complete(configs: dict[str, Any], kind: str, layout: Layout) -> None:
    """What the shapes of single files do not tell: the noise schedule and the scale of the latents.

    Whether 2.x predicts noise or velocity is not in its weights; the larger of the two published models,
    which predicts velocities, is assumed. Files of XL that predict velocities say so by an empty tensor
    "v_pred".
    """
    if "vae" in configs:
        configs["vae"].setdefault("scaling_factor", _SCALING[kind])
    if kind == "xl" and layout.kind == "files":
        configs.setdefault("force_zeros_for_empty_prompt", True)
    if "scheduler" not in configs:
        names = {name for entries in layout.files.values() for name in entries}
        velocity = {"prediction_type": "v_prediction"} if "v_pred" in names else {}
        zero = {"rescale_betas_zero_snr": True} if "ztsnr" in names else {}
        configs["scheduler"] = {**_SCHEDULERS[kind], **velocity, **zero}
