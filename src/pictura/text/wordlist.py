"""A word-level tokenizer over a short, closed list, in which names of several words stay together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

PAD, UNKNOWN, NULL, PLURAL = "<pad>", "<unk>", "<null>", "+s"


@dataclass(frozen=True, slots=True)
class Tokens:
    """`ids` without padding; `nouns` says for each which name of the text it belongs to (0, 1, ...; -1 for
    other words); `unknown` lists the words that the list does not have, as written."""

    ids: tuple[int, ...]
    nouns: tuple[int, ...]
    unknown: tuple[str, ...]
    dropped: tuple[str, ...] = ()  # known words beyond `length`


class WordList:
    """`entries` are the tokens in id order (the first four are pad, unknown, null, plural mark); `names`
    maps a name as written ("fire trucks") to its tokens; `synonyms` maps words or pairs of words to what
    they mean here, "" to drop them; `read_as` maps words that say less than the list can to the nearest that
    it has, which `notes` tells."""

    def __init__(
        self,
        entries: Iterable[str],
        names: Mapping[str, tuple[str, ...]],
        synonyms: Mapping[str, str],
        length: int,
        *,
        read_as: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.entries = tuple(entries)
        self.length = length
        self.ids = {entry: i for i, entry in enumerate(self.entries)}
        self.names = {tuple(name.split()): tokens for name, tokens in names.items()}
        self.longest = max(len(name) for name in self.names)
        self.synonyms = {**synonyms, **read_as}
        self.read_as = dict(read_as)

    def words(self, text: str) -> list[str]:
        """Lower case, punctuation gone, synonyms replaced (pairs before single words)."""
        raw = re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower())
        raw = [w for w in raw if self.synonyms.get(w, w)]
        out: list[str] = []
        i = 0
        while i < len(raw):
            pair = " ".join(raw[i : i + 2])
            if i + 1 < len(raw) and pair in self.synonyms:
                out.append(self.synonyms[pair])
                i += 2
            else:
                out.append(self.synonyms.get(raw[i], raw[i]))
                i += 1
        return out

    def encode(self, text: str) -> Tokens:
        """Ids of `text`; no known word at all gives the single null token (the unconditional caption)."""
        words = self.words(text)
        ids: list[int] = []
        nouns: list[int] = []
        unknown: list[str] = []
        dropped: list[str] = []
        noun = i = 0
        while i < len(words):
            for n in range(min(self.longest, len(words) - i), 0, -1):
                tokens = self.names.get(tuple(words[i : i + n]))
                if tokens is not None:
                    break
            taken = tokens if tokens is not None else (words[i],) if words[i] in self.ids else ()
            if not taken:
                unknown.append(words[i])
            elif len(ids) + len(taken) > self.length:
                dropped.append(" ".join(words[i : i + n]))
            else:
                ids += [self.ids[token] for token in taken]
                nouns += [noun if tokens is not None else -1] * len(taken)
                noun += tokens is not None
            i += n
        if not ids:
            ids, nouns = [self.ids[NULL]], [-1]
        return Tokens(tuple(ids), tuple(nouns), tuple(unknown), tuple(dropped))

    def notes(self, text: str) -> tuple[str, ...]:
        """What the user should know about how `text` is read: words ignored or read as others."""
        tokens = self.encode(text)
        told = [f"unknown word {word!r} was ignored" for word in dict.fromkeys(tokens.unknown)]
        told += [
            f"{word!r} was ignored: the caption is longer than {self.length} words" for word in tokens.dropped
        ]
        for word in text.lower().split():
            if word in self.read_as and len(set(tokens.nouns) - {-1}) > 1:
                told.append(f"{word!r} was read as '{self.read_as[word]} of'")
        if tokens.ids == (self.ids[NULL],):
            told.append("the prompt says nothing this model knows: the picture is unconditional")
        return tuple(told)

    def padded(self, tokens: Tokens) -> list[int]:
        """Ids filled up with the pad id to `length`."""
        return [*tokens.ids, *[self.ids[PAD]] * (self.length - len(tokens.ids))]
