"""What prompts become: the tensors that a network is conditioned on, and how encoders are asked.

Weights: the rows of an encoder's answer are multiplied by the weights of their tokens, and all of them then
scaled so that the chunk's mean is what it was: AUTOMATIC1111's rule, for every CLIP encoder. What T5 answers
has a mean near 0, by which nothing can be scaled; there the root mean square is kept. A vector of the whole
text (pooled) is that of the first chunk, without weights. A prompt of weight 1 in one chunk is read as by
diffusers.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor, nn

from pictura.engine import Answers, Ask
from pictura.errors import PresetError
from pictura.families.latent import embeddings
from pictura.families.latent.embeddings import Embedding
from pictura.families.latent.timing import Condition, texts
from pictura.nn.clip import ClipOutput, ClipText
from pictura.nn.t5 import T5Encoder
from pictura.request import Request
from pictura.text.chunks import Chunk, chunked, empty, single
from pictura.text.prompts import parse
from pictura.text.tokenizer import Tokenizer

__all__ = [
    "Condition",
    "check",
    "clip_answer",
    "ids_of",
    "layer_of",
    "length_of",
    "notes",
    "read_clip",
    "read_t5",
    "read_vector",
    "tokenizer",
]

LENGTH = 77  # tokens of a CLIP text at most
Layer = int | str | None
Texts = Generator[tuple[Ask, ...], Answers, tuple[Tensor, Tensor]]
Sequences = Generator[tuple[Ask, ...], Answers, Tensor]


class Reads(Protocol):
    """What is needed of a family."""

    @property
    def assets(self) -> Mapping[str, bytes]: ...
    @property
    def parts(self) -> Mapping[str, nn.Module]: ...
    def scale_of(self, request: Request) -> float: ...
    def lengths(self, request: Request) -> Mapping[str, int]: ...


# Asking


def read_clip(family: Reads, request: Request, net: str, text: str, layer: Layer) -> Texts:
    """(tokens (1, 77 k, d), pooled (1, p)) of a CLIP encoder, k the chunks of the request's longest prompt;
    layer: see `clip_answer`."""
    chunks = _clip_chunks(family, request, net, text)
    missing = _count(family, request) - len(chunks)
    chunks += (empty(_words(family, net), family.lengths(request)[net]),) * missing
    answers = yield tuple(_ask(family, request, net, chunk, layer) for chunk in chunks)
    width, pooled = _widths(family.parts[net])
    tokens = [_weighted(a[:, :-1, :width], c) for a, c in zip(answers, chunks, strict=True)]
    return torch.cat(tokens, 1), answers[0][:, -1, :pooled]


def read_vector(family: Reads, request: Request, net: str, text: str) -> Sequences:
    """(1, p): the vector of a CLIP encoder alone, which only the first chunk has a part in."""
    (first, *_) = _clip_chunks(family, request, net, text)
    (answer,) = yield (_ask(family, request, net, first, None),)
    return answer[:, -1, : _widths(family.parts[net])[1]]


def read_t5(family: Reads, request: Request, net: str, text: str) -> Sequences:
    """(1, length, d). Padding is read like everything else, as SD3 and FLUX were trained."""
    chunk = _t5_chunk(family, request, net, text)
    (hidden,) = yield (Ask(net, {"ids": torch.tensor([chunk.ids])}, memo=chunk.ids),)
    scaled = _times(hidden, chunk)
    kept = hidden.square().mean().sqrt() / scaled.square().mean().sqrt().clamp(min=1e-30)
    return hidden if scaled is hidden else scaled * kept


def _ask(family: Reads, request: Request, net: str, chunk: Chunk, layer: Layer) -> Ask:
    inputs = {"ids": torch.tensor([chunk.ids])}
    memo: list[Hashable] = [chunk.ids]
    used = _used(family, request, net)
    if used and max(chunk.ids) >= _encoder(family, net).vocabulary:
        inputs["rows"] = torch.cat([vectors for _, vectors in used])[None]
        memo += [embedding.key for embedding, _ in used]
    return Ask(net, inputs, variant=layer, memo=tuple(memo))


def _weighted(answer: Tensor, chunk: Chunk) -> Tensor:
    """answer (1, n, d) with each row times its weight, and the mean of all as before."""
    scaled = _times(answer, chunk)
    if scaled is answer:
        return answer
    return scaled * float(answer.double().mean()) / (float(scaled.double().mean()) or 1.0)


def _times(answer: Tensor, chunk: Chunk) -> Tensor:
    if all(weight == 1 for weight in chunk.weights):
        return answer
    return answer * torch.tensor(chunk.weights)[None, :, None]


# Answering


def clip_answer(net: nn.Module, layer: Layer, ids: Tensor, rows: Tensor | None = None) -> Tensor:
    """One tensor for all that is asked of a CLIP encoder: its tokens and its pooled vector, (b, 77 + 1, the
    larger width). rows (b, k, d): embeddings that ids beyond the vocabulary stand for.

    `layer` None is the last one with the final norm; -2 the last but one without it, and so on; "-2" with it.
    The pooled vector is projected where the encoder has a projection.
    """
    assert isinstance(net, ClipText)
    output: ClipOutput = net(ids, rows)
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


# Words


def length_of(encoder: nn.Module) -> int:
    """How many tokens an encoder reads at once: a CLIP encoder 77, or as many as it has positions for."""
    return min(LENGTH, encoder.length) if isinstance(encoder, ClipText) else LENGTH


def check(family: Reads, request: Request) -> None:
    """ParameterError for a weight or an embedding that cannot be; PresetError for a tokenizer that is missing
    or of another model."""
    loaded = embeddings.load(request.options.get("embeddings"))
    clips = {net: part for net, part in family.parts.items() if isinstance(part, ClipText)}
    for embedding in loaded:
        widths = [_widths(part)[0] for part in clips.values()]
        if not any(embedding.of_width(width) is not None for width in widths):
            own = ", ".join(str(v.shape[1]) for v in embedding.vectors)
            raise embeddings.wrong(
                embedding.word,
                f"has vectors of width {own}, and this model reads {', '.join(map(str, widths))}",
            )
    for net in family.lengths(request):
        for text in _texts(family, request):
            chunks = _chunks_of(family, request, net, text)
            known = _known(family, request, net)
            if max(max(chunk.ids) for chunk in chunks) >= known:
                raise PresetError(
                    f"the tokenizer of {net} has more words than the {known} that the network knows; "
                    "load the model with config=DIR, the folder that it came from"
                )


def notes(family: Reads, request: Request) -> tuple[str, ...]:
    """What of the prompt no encoder with a limit reads."""
    found = {
        f"{net} reads {length} tokens; left out: {chunk.lost!r}"
        for net, length in family.lengths(request).items()
        for text in texts(request, guided=False)
        for chunk in _chunks_of(family, request, net, text)
        if chunk.lost
    }
    return tuple(sorted(found))


def tokenizer(assets: Mapping[str, bytes], name: str) -> Tokenizer:
    """The tokenizer called `name`; PresetError where the model came without it."""
    if name not in assets:
        raise PresetError(f"the model came without its {name}; load it with config=DIR, a folder that has it")
    return _made(assets[name])


def ids_of(assets: Mapping[str, bytes], net: str, text: str, length: int) -> tuple[int, ...]:
    """The ids of `text` for the encoder called `net`, cut and padded to `length`."""
    words = tokenizer(assets, net.replace("text_encoder", "tokenizer"))
    return words.padded(words.encode(text), length)


@lru_cache(maxsize=32)
def _made(data: bytes) -> Tokenizer:
    return Tokenizer(data)


def _words(family: Reads, net: str) -> Tokenizer:
    return tokenizer(family.assets, net.replace("text_encoder", "tokenizer"))


def _texts(family: Reads, request: Request) -> list[str]:
    return texts(request, guided=family.scale_of(request) > 1)


def _count(family: Reads, request: Request) -> int:
    """How many chunks the longest of a request's texts has with any of the CLIP encoders."""
    clips = [net for net, part in family.parts.items() if isinstance(part, ClipText)]
    return max(
        len(_clip_chunks(family, request, net, text)) for net in clips for text in _texts(family, request)
    )


def _chunks_of(family: Reads, request: Request, net: str, text: str) -> tuple[Chunk, ...]:
    if isinstance(family.parts[net], ClipText):
        return _clip_chunks(family, request, net, text)
    return (_t5_chunk(family, request, net, text),)


def _clip_chunks(family: Reads, request: Request, net: str, text: str) -> tuple[Chunk, ...]:
    names, first = [], _encoder(family, net).vocabulary
    for embedding, vectors in _used(family, request, net):
        names.append((embedding.word, tuple(range(first, first + len(vectors)))))
        first += len(vectors)
    syntax = request.options.get("prompt_syntax") or "a1111"
    return _cut(_words(family, net), text, syntax, family.lengths(request)[net], tuple(names))


@lru_cache(maxsize=1024)
def _cut(
    words: Tokenizer, text: str, syntax: str, length: int, names: tuple[tuple[str, Sequence[int]], ...]
) -> tuple[Chunk, ...]:
    """Plain text is cut off after one chunk, as diffusers does, unless words stand for embeddings in it."""
    sections = parse(text, syntax)
    if syntax == "plain" and not names:
        return (single(words, sections, length),)
    return chunked(words, sections, length, dict(names))


def _t5_chunk(family: Reads, request: Request, net: str, text: str) -> Chunk:
    syntax = request.options.get("prompt_syntax") or "a1111"
    return _whole(_words(family, net), text, syntax, family.lengths(request)[net])


@lru_cache(maxsize=1024)
def _whole(words: Tokenizer, text: str, syntax: str, length: int) -> Chunk:
    return single(words, parse(text, syntax), length)


def _used(family: Reads, request: Request, net: str) -> list[tuple[Embedding, Tensor]]:
    """The request's embeddings that fit the encoder called `net`."""
    width = _widths(family.parts[net])[0]
    loaded = embeddings.load(request.options.get("embeddings"))
    return [(one, vectors) for one in loaded if (vectors := one.of_width(width)) is not None]


def _known(family: Reads, request: Request, net: str) -> int:
    part = family.parts[net]
    if isinstance(part, T5Encoder):
        return part.shared.num_embeddings
    return _encoder(family, net).vocabulary + sum(len(v) for _, v in _used(family, request, net))


def _encoder(family: Reads, net: str) -> ClipText:
    encoder = family.parts[net]
    assert isinstance(encoder, ClipText)
    return encoder


def _widths(encoder: nn.Module) -> tuple[int, int]:
    """(of tokens, of the pooled vector)."""
    assert isinstance(encoder, ClipText)
    width = encoder.text_model.final_layer_norm.normalized_shape[0]
    projection = getattr(encoder, "text_projection", None)
    return width, width if projection is None else projection.out_features
