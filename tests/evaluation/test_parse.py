"""`parse` reads back every phrasing that `captions` can write."""

from __future__ import annotations

import itertools

import pytest

from pictura.datasets.scenes.grammar import (
    COLOURS,
    NUMBERS,
    RELATIONS,
    CaptionError,
    Scene,
    captions,
    layout,
    parse,
    things,
)


def scene(kind: str, objects: tuple[int, ...], number: int, relation: str, colour: str, told: bool) -> Scene:
    return Scene(kind=kind, objects=objects, number=number, relation=relation, background=colour, told=told,
                 places=layout(kind, number, relation, (64, 64)))


def every_object() -> list[Scene]:
    """Each object alone, in each number, and first and second in each relation, told and untold."""
    colours = itertools.cycle(COLOURS)
    n = len(things())
    scenes = []
    for index, told in itertools.product(range(n), (False, True)):
        scenes.append(scene("single", (index,), 1, "", next(colours), told))
        scenes += [scene("count", (index,), k, "", next(colours), told) for k in NUMBERS]
        scenes += [scene("relation", (index, (index + 1 + k) % n), 1, r, next(colours), told)
                   for k, r in enumerate(RELATIONS)]
    return scenes


def test_parse_inverts_captions() -> None:
    for asked in every_object():
        for text in captions(asked):
            wish = parse(text)
            assert (wish.kind, wish.objects, wish.number, wish.relation) == (
                asked.kind, asked.objects, asked.number, asked.relation), text
            assert wish.background == (asked.background if asked.told else None), text


def test_case_spaces_and_full_stop_do_not_matter() -> None:
    assert parse("  A Cat LEFT of  a dog. ") == parse("a cat left of a dog")


@pytest.mark.parametrize("text, part", [
    ("", "empty"),
    ("a zeppelin", "zeppelin"),
    ("a cat left of", "left of"),
    ("two cat", "cat"),
    ("a cat on a mauve background", "mauve"),
    ("five cats", "five cats"),
    ("a cat left of a dog right of a pig", "right of a pig"),
    ("cats", "cats"),
])
def test_anything_else_is_named_in_the_error(text: str, part: str) -> None:
    with pytest.raises(CaptionError, match=part):
        parse(text)
