"""Prompts of a batch put into words by the batch itself, with a folder of wildcards and a file of styles.

It is done before pictures are asked for, so that every engine draws the same, wherever its models are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pictura.batch.plan import Item
from pictura.errors import ParameterError
from pictura.text import styles
from pictura.text.wording import worded

__all__ = ["styles_digest", "wording_of"]

Path = str | os.PathLike[str]


def styles_digest(path: Path) -> str:
    """SHA-256 of the styles that a file holds; ParameterError where it cannot be used."""
    found = {name: repr(style) for name, style in styles.read(path).items()}
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def wording_of(network: Any, wildcards: Path | None, styles_file: Path | None) -> Callable[[Item], Item]:
    """What gives an item the prompts that are drawn. One that cannot be put into words becomes a problem."""
    if wildcards is None and styles_file is None:
        return lambda item: item  # the model does it
    uses = getattr(network, "provider", None) or getattr(network, "family", None)
    own = getattr(uses, "options", {})

    def word(item: Item) -> Item:
        try:
            said = [worded(r, wildcards=wildcards, styles_file=styles_file, own=own) for r in item.candidates]
        except ParameterError as error:
            return replace(item, candidates=(), problem=str(error))
        return replace(item, candidates=tuple(said))

    return word
