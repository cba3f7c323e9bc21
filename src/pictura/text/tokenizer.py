"""Tokenizers of the known text encoders, on the `tokenizers` library.

A tokenizer travels as the bytes of one JSON file in the library's own format, padding included;
`tokenizer_files` makes it from what lies in a model's folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pictura.errors import PresetError, shown

__all__ = ["Tokenizer"]


class Tokenizer:
    """Texts to ids. `start` and `end` are the ids that every text is put between, `pad` fills it up.

    `data` is the JSON; PresetError where it is none that the library can use.
    """

    def __init__(self, data: bytes) -> None:
        from tokenizers import Tokenizer as Backend

        self.data = data
        with _library():
            self._backend: Any = Backend.from_str(data.decode())
            padding = self._backend.padding or {}
            self._backend.no_padding()
            self._backend.no_truncation()
            around = tuple(self._backend.encode("").ids)
        if not 1 <= len(around) <= 2:
            raise PresetError(
                f"the tokenizer puts {len(around)} tokens around a text; a text encoder's puts an end token "
                "there and at most a start token"
            )
        self.start, self.end = around[:-1], around[-1]
        default = self.id_of("<pad>")
        self.pad: int = padding.get("pad_id", self.end if default is None else default)
        self.size: int = self._backend.get_vocab_size(with_added_tokens=True)
        self.comma = self.id_of(",</w>")  # where a long text is best cut

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of `text` alone: nothing around it, nothing cut off."""
        with _library():
            return tuple(self._backend.encode(text, add_special_tokens=False).ids)

    def tokens(self, text: str) -> list[tuple[int, int]]:
        """(id, where in `text` it ends) of each token: what `encode` gives, with the places of its ids."""
        with _library():
            found = self._backend.encode(text, add_special_tokens=False)
            return [(number, end) for number, (_, end) in zip(found.ids, found.offsets, strict=True)]

    def id_of(self, token: str) -> int | None:
        """The id of a token of the vocabulary, as it is spelt there; None where there is no such token."""
        found: int | None = self._backend.token_to_id(token)
        return found

    def padded(self, ids: Sequence[int], length: int) -> tuple[int, ...]:
        """`ids` between start and end token, cut and filled up to `length`."""
        room = length - len(self.start) - 1
        whole = (*self.start, *ids[:room], self.end)
        return (*whole, *[self.pad] * (length - len(whole)))

    def room(self, length: int) -> int:
        """How many ids of a text fit into `length`."""
        return length - len(self.start) - 1

    def decode(self, ids: Iterable[int]) -> str:
        """The text that `ids` came from, as far as that can be told: words, one space between each two."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=False)
        return " ".join(text.replace("</w>", " ").replace("▁", " ").split())


@contextmanager
def _library() -> Iterator[None]:
    """PresetError for what the library raises; its panics are no Exceptions."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise PresetError(
            f"the tokenizer cannot be used ({shown(str(error), 200)}); get its files anew"
        ) from error
