"""What diffusers' `unet/config.json` says, level by level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pictura.errors import PresetError, did_you_mean
from pictura.nn import config as configs
from pictura.nn.config import Flags, PerLevel
from pictura.nn.resnet import ACTIVATIONS

WHAT = "unet"
DOWN = {"DownBlock2D": False, "CrossAttnDownBlock2D": True}
UP = {"UpBlock2D": False, "CrossAttnUpBlock2D": True}
DEALT_TO_HEADS = "channels cannot be dealt out to heads:"
DEALT_TO_GROUPS = "channels cannot be dealt out to groups of norms:"
POSSIBLE: dict[str, tuple[Any, ...]] = {
    "act_fn": tuple(ACTIVATIONS),
    "mid_block_type": ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "time_embedding_type": ("positional",),
    "time_embedding_act_fn": (None, *ACTIVATIONS),
    "timestep_post_act": (None, *ACTIVATIONS),
    "class_embed_type": (None, "timestep", "identity", "projection", "simple_projection"),
    "addition_embed_type": (None, "text_time"),
    "encoder_hid_dim_type": (None, "text_proj"),
    "attention_type": ("default",),
    "dual_cross_attention": (False,),
    "downsample_padding": (1,),
}


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """diffusers' keys and defaults. `attention_head_dim` is the number of heads, a misnomer of old files."""

    in_channels: int = 4
    out_channels: int = 4
    center_input_sample: bool = False
    flip_sin_to_cos: bool = True
    freq_shift: float = 0.0
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    mid_block_type: str | None = "UNetMidBlock2DCrossAttn"
    up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    only_cross_attention: Flags = False
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: PerLevel = 2
    mid_block_scale_factor: float = 1.0
    dropout: float = 0.0
    act_fn: str = "silu"
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    cross_attention_dim: PerLevel = 1280
    transformer_layers_per_block: PerLevel = 1
    reverse_transformer_layers_per_block: PerLevel | None = None
    encoder_hid_dim: int | None = None
    attention_head_dim: PerLevel = 8
    num_attention_heads: PerLevel | None = None
    use_linear_projection: bool = False
    class_embed_type: str | None = None
    addition_embed_type: str | None = None
    addition_time_embed_dim: int | None = None
    num_class_embeds: int | None = None
    upcast_attention: bool = False
    resnet_time_scale_shift: str = "default"
    time_embedding_dim: int | None = None
    time_embedding_act_fn: str | None = None
    timestep_post_act: str | None = None
    time_cond_proj_dim: int | None = None
    conv_in_kernel: int = 3
    conv_out_kernel: int = 3
    projection_class_embeddings_input_dim: int | None = None
    class_embeddings_concat: bool = False


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the blocks of one level are built; `depth` is of each transformer, one number or one for each
    layer, `time` the width of the vector that residual blocks read."""

    layers: int
    cross: bool
    depth: Any
    heads: int
    context: int
    only_cross: bool
    linear: bool
    upcast: bool
    time: int
    groups: int
    eps: float
    act: str
    scale_shift: bool
    dropout: float

    def depths(self, layers: int) -> tuple[int, ...]:
        return configs.per_level(WHAT, "transformer_layers_per_block", self.depth, layers)


def first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


def level_settings(c: UNetConfig, vector: int) -> list[Settings]:
    """How the blocks of each level on the way down are built."""
    levels = len(c.block_out_channels)
    if not levels or levels != len(c.down_block_types) or levels != len(c.up_block_types):
        raise PresetError(
            f"{WHAT}: {levels} block_out_channels, {len(c.down_block_types)} down_block_types and "
            f"{len(c.up_block_types)} up_block_types; give as many of each"
        )
    heads = c.num_attention_heads if c.num_attention_heads is not None else c.attention_head_dim

    def each(key: str, value: Any) -> tuple[Any, ...]:
        return configs.per_level(WHAT, key, value, levels)

    columns = zip(
        c.block_out_channels,
        c.down_block_types,
        each("attention_head_dim", heads),
        each("cross_attention_dim", c.cross_attention_dim),
        each("layers_per_block", c.layers_per_block),
        each("transformer_layers_per_block", c.transformer_layers_per_block),
        each("only_cross_attention", c.only_cross_attention),
        strict=True,
    )
    found = []
    for width, kind, head, context, layers, depth, only_cross in columns:
        configs.divisible(WHAT, width, c.norm_num_groups, DEALT_TO_GROUPS)
        cross = kind_of(DOWN, "down_block_types", kind)
        if cross:
            configs.divisible(WHAT, width, head, DEALT_TO_HEADS)
        found.append(
            Settings(
                layers=layers, cross=cross, depth=depth, heads=head, context=context,
                only_cross=only_cross, linear=c.use_linear_projection, upcast=c.upcast_attention,
                time=vector, groups=c.norm_num_groups, eps=c.norm_eps, act=c.act_fn,
                scale_shift=c.resnet_time_scale_shift == "scale_shift", dropout=c.dropout,
                
            )
        )  # fmt: skip
    return found


def mid_settings(c: UNetConfig, last: Settings) -> Settings:
    """The middle is built like the lowest level, with self-attention in any case."""
    cross = c.mid_block_type == "UNetMidBlock2DCrossAttn"
    if cross:
        configs.divisible(WHAT, c.block_out_channels[-1], last.heads, DEALT_TO_HEADS)
    return replace(last, cross=cross, only_cross=False)


def up_settings(c: UNetConfig, down: list[Settings]) -> list[Settings]:
    """The levels on the way up, lowest first, each with one layer more than on the way down."""
    depths = c.reverse_transformer_layers_per_block
    if depths is None:
        if any(isinstance(s.depth, tuple) for s in down):
            raise PresetError(
                f"{WHAT}: transformer_layers_per_block differs within a level; give "
                "reverse_transformer_layers_per_block too"
            )
        depths = tuple(s.depth for s in reversed(down))
    depths = configs.per_level(WHAT, "reverse_transformer_layers_per_block", depths, len(down))
    found = []
    for s, kind, depth in zip(reversed(down), c.up_block_types, depths, strict=True):
        cross = kind_of(UP, "up_block_types", kind)
        found.append(replace(s, layers=s.layers + 1, cross=cross, depth=depth))
    return found


def kind_of(kinds: Mapping[str, bool], key: str, kind: str) -> bool:
    """Whether a block of this kind has attention; PresetError for an unknown one."""
    if kind not in kinds:
        raise PresetError(f"{WHAT}: {key} has {kind!r}; {did_you_mean(str(kind), kinds)}")
    return kinds[kind]
