"""CLIP's text encoder (Radford et al. 2021): CLIP-L, OpenCLIP-H, OpenCLIP-bigG.

Parameters have the names that files in circulation have (`text_model.…`, `text_projection.weight`), and a
network is built from the `config.json` that lies beside them.

Sizes: b texts, n tokens, d width, k further embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.errors import PresetError, did_you_mean, shown
from pictura.nn.transformer import pad_rows

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
}
# What a config.json leaves out means this.
TEXT_CONFIG: dict[str, Any] = {
    "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "projection_dim": 512,
    "num_hidden_layers": 12, "num_attention_heads": 8, "max_position_embeddings": 77,
    "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "eos_token_id": 49407, "architectures": (),
}  # fmt: skip


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The function called `name` in a configuration; PresetError for an unknown one."""
    if name not in ACTIVATIONS:
        raise PresetError(
            f"activation {shown(name)} of a text encoder is unknown; {did_you_mean(name, ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]


def heads_of(config: Mapping[str, Any]) -> int:
    """The number of attention heads; PresetError where the width cannot be cut into so many."""
    width, heads = config["hidden_size"], config["num_attention_heads"]
    if heads < 1 or width % heads:
        raise PresetError(
            f"a text encoder of width {width} cannot have {heads} heads; choose a divisor of it"
        )
    return heads


class ClipOutput(NamedTuple):
    """hidden: the input of the first layer and the output of each, (b, n, d), none with the final norm;
    last: the last of them with it; pooled (b, d): `last` at the end of the text; projected (b, p): pooled
    through the projection, None where the network has none."""

    hidden: tuple[Tensor, ...]
    last: Tensor
    pooled: Tensor
    projected: Tensor | None


class ClipAttention(nn.Module):
    """Attention among all tokens, or with `causal` to those before a token and itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )  # (b, h, n, d/h)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.out_proj(y.transpose(1, 2).flatten(-2))


class ClipMlp(nn.Module):
    def __init__(self, width: int, hidden: int, act: str) -> None:
        super().__init__()
        self.act = activation(act)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class ClipLayer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, eps = config["hidden_size"], config["layer_norm_eps"]
        self.self_attn = ClipAttention(width, heads_of(config))
        self.layer_norm1 = nn.LayerNorm(width, eps)
        self.mlp = ClipMlp(width, config["intermediate_size"], config["hidden_act"])
        self.layer_norm2 = nn.LayerNorm(width, eps)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), causal)
        return x + self.mlp(self.layer_norm2(x))


class ClipEncoder(nn.Module):
    """The layers one after the other; `forward` gives its input and the output of each."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ClipLayer(config) for _ in range(config["num_hidden_layers"]))

    def forward(self, x: Tensor, causal: bool = False) -> tuple[Tensor, ...]:
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1], causal))
        return tuple(states)


class TextEmbeddings(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.position_embedding = nn.Embedding(config["max_position_embeddings"], config["hidden_size"])

    def forward(self, ids: Tensor, rows: Tensor | None) -> Tensor:
        known = self.token_embedding.num_embeddings
        x = self.token_embedding(ids.clamp(max=known - 1))
        if rows is not None:
            place = (ids - known).clamp(min=0)[..., None].expand(-1, -1, x.shape[-1])
            x = torch.where((ids >= known)[..., None], rows.to(x.dtype).gather(1, place), x)
        return x + self.position_embedding.weight[: ids.shape[1]]


class TextTransformer(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.embeddings = TextEmbeddings(config)
        self.encoder = ClipEncoder(config)
        self.final_layer_norm = nn.LayerNorm(config["hidden_size"], config["layer_norm_eps"])


class ClipText(nn.Module):
    """`config` as transformers writes it. `projected`: whether there is a `text_projection`; None reads it
    from the configuration's `architectures`."""

    def __init__(self, config: Mapping[str, Any], *, projected: bool | None = None) -> None:
        super().__init__()
        c = {**TEXT_CONFIG, **config}
        if projected is None:
            projected = "CLIPTextModelWithProjection" in (c["architectures"] or ())
        self.vocabulary: int = c["vocab_size"]
        self.length: int = c["max_position_embeddings"]
        self.end: int = c["eos_token_id"]
        self.text_model = TextTransformer(c)
        if projected:
            self.text_projection = nn.Linear(c["hidden_size"], c["projection_dim"], bias=False)

    def forward(self, ids: Tensor, rows: Tensor | None = None) -> ClipOutput:
        """ids (b, n), n up to the number of positions. An id of `vocabulary` + i stands for `rows[:, i]`,
        (b, k, d): embeddings that the vocabulary does not have (textual inversion)."""
        hidden = self.text_model.encoder(self.text_model.embeddings(ids, rows), causal=True)
        last = self.text_model.final_layer_norm(hidden[-1])
        pooled = last[torch.arange(len(ids), device=ids.device), self._ends(ids)]
        projected = None
        if hasattr(self, "text_projection"):
            projected = self.text_projection(pad_rows(pooled))[: len(ids)]
        return ClipOutput(hidden, last, pooled, projected)

    def normed(self, x: Tensor) -> Tensor:
        """The final norm, for a hidden state other than the last."""
        return self.text_model.final_layer_norm(x)

    def _ends(self, ids: Tensor) -> Tensor:
        """(b,): where each text ends, which is where its first end token is.

        Configurations from before 2023 say 2 where the end token is really the vocabulary's last one; it is
        looked for as the largest id then. Ids beyond the vocabulary are no candidates for it.
        """
        if self.end == 2:
            return ids.masked_fill(ids >= self.vocabulary, -1).argmax(-1)
        return (ids == self.end).int().argmax(-1)
