"""What a prompt becomes: the tensors that a network is conditioned on, and how encoders are asked."""

from __future__ import annotations

from collections.abc import Generator, Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from pictura.engine import Answers, Ask
from pictura.errors import PresetError
from pictura.nn.clip import ClipOutput, ClipText
from pictura.text.tokenizer import Tokenizer

__all__ = ["Condition", "Texts", "clip_answer", "ids_of", "layer_of", "read_clip", "read_t5", "tokenizer"]

LENGTH = 77  # tokens of a CLIP text
Layer = int | str | None
Texts = Generator[tuple[Ask, ...], Answers, tuple[Tensor, Tensor]]
Sequences = Generator[tuple[Ask, ...], Answers, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Condition:
    """context (1, n, d), pooled (1, k) where the network reads it. negative: it is what to move away from."""

    context: Tensor
    pooled: Tensor | None = None
    negative: bool = False


@lru_cache(maxsize=32)
def _made(data: bytes) -> Tokenizer:
    return Tokenizer(data)


def tokenizer(assets: Mapping[str, bytes], name: str) -> Tokenizer:
    """The tokenizer called `name`; PresetError where the model came without it."""
    if name not in assets:
        raise PresetError(f"the model came without its {name}; load it with config=DIR, a folder that has it")
    return _made(assets[name])


def read_clip(assets: Mapping[str, bytes], net: str, encoder: nn.Module, text: str, layer: Layer) -> Texts:
    """(tokens (1, 77, d), pooled (1, k)) of a CLIP encoder; layer: see `clip_answer`."""
    assert isinstance(encoder, ClipText)
    ids = ids_of(assets, net, text, LENGTH)
    (packed,) = yield (Ask(net, {"ids": torch.tensor([ids])}, variant=layer, memo=ids),)
    width = encoder.text_model.final_layer_norm.normalized_shape[0]
    projection = getattr(encoder, "text_projection", None)
    pooled = width if projection is None else projection.out_features
    return packed[:, :-1, :width], packed[:, -1, :pooled]


def read_t5(assets: Mapping[str, bytes], net: str, text: str, length: int) -> Sequences:
    """(1, length, d). Padding is read like everything else, as SD3 and FLUX were trained."""
    ids = ids_of(assets, net, text, length)
    (hidden,) = yield (Ask(net, {"ids": torch.tensor([ids])}, memo=ids),)
    return hidden


def clip_answer(net: nn.Module, ids: Tensor, layer: Layer) -> Tensor:
    """One tensor for all that is asked of a CLIP encoder: its tokens and its pooled vector, (b, 77 + 1, the
    larger width).

    `layer` None is the last one with the final norm; -2 the last but one without it, and so on; "-2" with it.
    The pooled vector is projected where the encoder has a projection.
    """
    assert isinstance(net, ClipText)
    output: ClipOutput = net(ids)
    if isinstance(layer, str):
        tokens = net.normed(output.hidden[int(layer)])
    else:
        tokens = output.last if layer is None else output.hidden[layer]
    pooled = output.pooled if output.projected is None else output.projected
    packed = tokens.new_zeros(len(ids), ids.shape[1] + 1, max(tokens.shape[-1], pooled.shape[-1]))
    packed[:, :-1, : tokens.shape[-1]] = tokens
    packed[:, -1, : pooled.shape[-1]] = pooled
    return packed


def layer_of(variant: Hashable) -> Layer:
    """The layer in the variant of a question to an encoder."""
    return variant if isinstance(variant, int | str) else None


def ids_of(assets: Mapping[str, bytes], net: str, text: str, length: int = LENGTH) -> tuple[int, ...]:
    """The ids of `text` for the encoder called `net`, cut and padded to `length`."""
    words = tokenizer(assets, net.replace("text_encoder", "tokenizer"))
    return words.padded(words.encode(text), length)
