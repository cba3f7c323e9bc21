"""Textual inversion (Gal et al. 2023): words of their own, which stand for embeddings from a file.

{TOKEN: (n, d) or (d,)}             as diffusers writes learned_embeds.safetensors
{"emb_params": (n, d)}              as AUTOMATIC1111's web interface writes it; the word is the file's name
{"clip_l": (n, d), "clip_g": ...}   for the two encoders of Stable Diffusion XL
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pictura.attachments import open_file
from pictura.errors import ParameterError, shown
from pictura.formats import safetensors

__all__ = ["Embedding", "load", "wrong"]

MOST = 75  # vectors of one word: what CLIP reads at once
_PARTS = ("clip_l", "clip_g")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedding:
    """word: what stands in prompts; vectors (n, d): of one encoder each, told apart by d; key: its digest."""

    word: str
    vectors: tuple[Tensor, ...]
    key: str

    def of_width(self, width: int) -> Tensor | None:
        return next((v for v in self.vectors if v.shape[1] == width), None)


def load(records: object) -> tuple[Embedding, ...]:
    """The embeddings that the option `embeddings` lists: {"path", "sha256"[, "token"]} each.

    ParameterError for a file that holds none, and where two have the same word.
    """
    found: dict[str, Embedding] = {}
    for record in _records(records):
        path = open_file({name: record[name] for name in ("path", "sha256") if name in record}, "embeddings")
        word, vectors = _read(str(path), str(record["sha256"]))
        word = record.get("token") or (Path(str(record.get("path") or path)).stem if word is None else word)
        if not isinstance(word, str) or not word.strip() or word.lower() in found:
            raise ParameterError(
                f"two embeddings have the word {shown(word)}, or it is none; give another as token",
                parameter="embeddings",
            )
        found[word.lower()] = Embedding(word=word, vectors=vectors, key=f"{record['sha256']}")
    return tuple(found.values())


def _records(given: object) -> Iterable[Mapping[str, Any]]:
    if given is None:
        return ()
    if isinstance(given, Mapping):
        given = (given,)
    if not isinstance(given, (tuple, list)) or not all(
        isinstance(record, Mapping) and "sha256" in record and not set(record) - {"path", "sha256", "token"}
        for record in given
    ):
        raise ParameterError(
            f"embeddings is {shown(given)}; give a list of {{'path': FILE}}, with 'token' for another word",
            parameter="embeddings",
        )
    return given


@lru_cache(maxsize=64)
def _read(path: str, digest: str) -> tuple[str | None, tuple[Tensor, ...]]:
    """(the word if the file has one, the vectors); the file has this digest."""
    if not path.endswith(".safetensors"):
        raise wrong(Path(path).name, "is no safetensors file, and others can hold programs; convert it")
    entries = safetensors.header(Path(path))
    names = [name for name in _PARTS if name in entries]
    word = None
    if not names:
        candidates = [name for name, entry in entries.items() if len(entry.shape) in (1, 2)]
        names = ["emb_params"] if "emb_params" in candidates else candidates
        word = None if names == ["emb_params"] else next(iter(names), None)
        if len(names) != 1:
            raise wrong(Path(path).name, f"holds {shown(sorted(entries))}, not one word's vectors")
    vectors = []
    for name in names:
        shape, kind = entries[name].shape, safetensors.torch_dtype(entries[name].dtype)
        if len(shape) not in (1, 2) or not kind.is_floating_point or shape[0] < 1 or shape[-1] < 1:
            raise wrong(Path(path).name, f"holds {shown(name)} of shape {tuple(shape)}, not a word's vectors")
        if len(shape) == 2 and shape[0] > MOST:
            raise wrong(Path(path).name, f"has {shape[0]} vectors for a word; at most {MOST} can be read")
        tensor = torch.empty(shape, dtype=kind)
        safetensors.fill({name: entries[name]}, {name: tensor})
        vectors.append(tensor.float().reshape(-1, shape[-1]))
    if len({v.shape[1] for v in vectors}) != len(vectors) or not all(map(_finite, vectors)):
        raise wrong(Path(path).name, "holds vectors that are no numbers, or two of one width")
    return word, tuple(vectors)


def _finite(vectors: Tensor) -> bool:
    return bool(torch.isfinite(vectors).all())


def wrong(name: str, what: str) -> ParameterError:
    return ParameterError(f"embeddings: {shown(name)} {what}", parameter="embeddings")
