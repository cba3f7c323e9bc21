"""CLIP's picture encoder, a vision transformer (Dosovitskiy et al. 2021).

Parameters have the names of files in circulation (`vision_model.…`, `visual_projection.weight`; the spelling
`pre_layrnorm` is theirs).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pictura.nn.clip import ClipEncoder, ClipOutput
from pictura.nn.convolution import Conv2d
from pictura.nn.transformer import pad_rows

VISION_CONFIG: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "projection_dim": 512, "num_hidden_layers": 12,
    "num_attention_heads": 12, "num_channels": 3, "image_size": 224, "patch_size": 32,
    "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "architectures": (),
}  # fmt: skip
# What pictures, given in 0..1, are shifted and scaled by before they enter.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class PatchEmbeddings(nn.Module):
    """(b, 3, side, side) -> (b, 1 + patches, d): a learned token for the whole, then one for each patch."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, patch = config["hidden_size"], config["patch_size"]
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.patch_embedding = Conv2d(config["num_channels"], width, patch, patch, bias=False)
        self.position_embedding = nn.Embedding((config["image_size"] // patch) ** 2 + 1, width)

    def forward(self, pictures: Tensor) -> Tensor:
        patches = self.patch_embedding(pictures).flatten(2).transpose(1, 2)
        whole = self.class_embedding.expand(len(patches), 1, -1)
        return torch.cat([whole, patches], 1) + self.position_embedding.weight


class VisionTransformer(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, eps = config["hidden_size"], config["layer_norm_eps"]
        self.embeddings = PatchEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(width, eps)
        self.encoder = ClipEncoder(config)
        self.post_layernorm = nn.LayerNorm(width, eps)


class ClipVision(nn.Module):
    """`config` as transformers writes it. `projected`: whether there is a `visual_projection`; None reads it
    from the configuration's `architectures`."""

    def __init__(self, config: Mapping[str, Any], *, projected: bool | None = None) -> None:
        super().__init__()
        c = {**VISION_CONFIG, **config}
        if projected is None:
            projected = "CLIPVisionModelWithProjection" in (c["architectures"] or ())
        self.side: int = c["image_size"]
        self.vision_model = VisionTransformer(c)
        if projected:
            self.visual_projection = nn.Linear(c["hidden_size"], c["projection_dim"], bias=False)

    def forward(self, pictures: Tensor) -> ClipOutput:
        """(b, 3, side, side), normalised by `MEAN` and `STD`. `last` has no norm here, as the layers give it;
        `pooled` is the whole picture's token with the final norm."""
        model = self.vision_model
        hidden = model.encoder(model.pre_layrnorm(model.embeddings(pictures)))
        pooled = model.post_layernorm(hidden[-1][:, 0])
        projected = None
        if hasattr(self, "visual_projection"):
            projected = self.visual_projection(pad_rows(pooled))[: len(pooled)]
        return ClipOutput(hidden, hidden[-1], pooled, projected)
