"""The prompts that a command line gives: words, a file, or standard input."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

from pictura.errors import FileError, InputError, shown

__all__ = ["prompts_given"]


def prompts_given(
    prompts: Sequence[str], file: str | None, checked: Callable[[str], str]
) -> tuple[Iterable[str], int | None]:
    """The prompts to draw and their number, None if they still come in. InputError if there are none."""
    if file is None:
        if not prompts:
            raise InputError("there is no prompt; give one in quotes, or --prompts FILE")
        return [checked(prompt) for prompt in prompts], len(prompts)
    if prompts:
        raise InputError("prompts come from the command line or from --prompts, not from both")
    if file == "-":
        sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
        return (checked(prompt) for prompt in _lines(sys.stdin)), None
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as lines:
            found = [checked(prompt) for prompt in _lines(lines)]
    except OSError as error:
        raise FileError(f"{shown(file)} cannot be read: {error.strerror or error}") from error
    if not found:
        raise InputError(f"{shown(file)} holds no prompt; write one a line")
    return found, len(found)


def _lines(lines: Iterable[str]) -> Iterator[str]:
    """Every line that is not blank, without the white space around it."""
    return (line.strip() for line in lines if line.strip())
