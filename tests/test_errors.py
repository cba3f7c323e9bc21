"""The tree of errors is what its docstring draws, and errors survive the way between processes."""

from __future__ import annotations

import pickle
import re

import pytest

import pictura
from pictura import errors


def test_the_docstring_draws_the_tree() -> None:
    drawn = dict(re.findall(r"(\w+) +(exit \d+ +HTTP \d+)", errors.__doc__ or ""))
    for name, text in drawn.items():
        kind = getattr(errors, name)
        assert text.split() == ["exit", str(kind.exit_code), "HTTP", str(kind.http_status)]
    kinds = {name for name in errors.__all__ if isinstance(getattr(errors, name), type)}
    assert kinds <= set(re.findall(r"\w+", errors.__doc__ or ""))


def test_every_error_is_public_and_derives_from_the_base() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        if isinstance(kind, type):
            assert issubclass(kind, errors.PicturaError)
            assert getattr(pictura, name) is kind


def test_a_parameter_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(errors.ParameterError("seed is -1", parameter="seed")))
    assert (str(error), error.parameter, error.exit_code) == ("seed is -1", "seed", 2)


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("value", ["a\nb", "x" * 10**6, "\ud800", Rude(), b"\0" * 100, [1] * 1000])
def test_shown_is_one_short_line(value: object) -> None:
    text = errors.shown(value)
    assert len(text) <= 60 and text.isprintable()
    text.encode()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="txt2img"):
        _ = pictura.txt2img
