"""The words of the scenes, as tokens for a model that learns them."""

from __future__ import annotations

from collections.abc import Iterable

from pictura.text.wordlist import NULL, PAD, PLURAL, UNKNOWN, WordList

from .grammar import COLOURS, NUMBERS, RELATIONS, things

LENGTH = 8
ROWS = 320  # rows of the embedding: 284 words and room for names learnt later
SYNONYMS = {
    **dict.fromkeys(("a", "an", "the", "of", "to", "background", "with", "there"), ""),
    **dict.fromkeys(("is", "are", "one", "1"), ""),
    **dict.fromkeys(("picture", "image", "photo", "drawing", "emoji", "some"), ""),
    "2": "two", "3": "three", "4": "four", "grey": "gray",
    "over": "above", "on top": "above", "under": "below", "beneath": "below", "underneath": "below",
    "on left": "left", "on right": "right",
}  # fmt: skip
# Words that say less than the model can draw: read as the nearest it knows, and told to the user.
READ_AS = {"and": "left", "beside": "left", "near": "left", "next": "left"}


def word_list(taught: Iterable[str] = ()) -> WordList:
    """Tokens in id order: marks, relation, size, count and colour words, words of the objects' names, then
    `taught` names (one new token each)."""
    entries = [PAD, UNKNOWN, NULL, PLURAL, "on", *RELATIONS, "small", "big", *NUMBERS.values(), *COLOURS]
    names: dict[str, tuple[str, ...]] = {}
    for thing in things():
        tokens = tuple(thing.singular.split())
        entries += [word for word in tokens if word not in entries]
        names[thing.plural] = (*tokens, PLURAL)
        names[thing.singular] = tokens  # last: a plural spelled like the singular has no mark
    for name in taught:
        token = name.lower()
        entries.append(token)
        names[token] = (token,)
    return WordList(entries, names, SYNONYMS, LENGTH, read_as=READ_AS)
