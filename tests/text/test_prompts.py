"""Weighted prompts against trees whose weights are known by construction; chunks against a formula."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pictura.errors import ParameterError
from pictura.text.chunks import BACK, chunked, empty, single
from pictura.text.prompts import Piece, parse
from pictura.text.schedule import scheduled
from pictura.text.tokenizer import Tokenizer
from pictura.text.tokenizer_files import clip

letters = st.text("ab ,.'é猫😀:|{}_\\()[]", min_size=1, max_size=8)


def flat(prompt: str) -> list[tuple[str, float]]:
    (section,) = parse(prompt)
    return [(character, piece.weight) for piece in section for character in piece.text]


def escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in "()[]\\" else c for c in text)


@st.composite
def trees(draw: st.DrawFn, depth: int = 3) -> tuple[str, list[tuple[str, float]]]:
    """(a prompt, the weight of each of its characters): brackets only around what is known."""
    prompt, weights = "", []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["text", "(", "[", "number"] if depth else ["text"]))
        if kind == "text":
            text = draw(letters)
            prompt += escaped(text)
            weights += [(c, 1.0) for c in text]
            continue
        inner, known = draw(trees(depth - 1))
        number = draw(st.sampled_from(["0.5", "1.3", "-1", ".25", "2"]))
        if kind == "number":
            prompt += f"({inner}:{number})"
        else:
            prompt += f"({inner})" if kind == "(" else f"[{inner}]"
        factor = {"(": 1.1, "[": 1 / 1.1, "number": float(number)}[kind]
        weights += [(c, w * factor) for c, w in known]
    return prompt, weights


@settings(max_examples=200, deadline=None)
@given(tree=trees())
def test_weights_are_products_of_the_brackets_around(tree: tuple[str, list[tuple[str, float]]]) -> None:
    prompt, expected = tree
    found = flat(prompt)
    assert [c for c, _ in found] == [c for c, _ in expected]
    assert [w for _, w in found] == pytest.approx([w for _, w in expected])


@pytest.mark.parametrize(
    "prompt,expected",
    [
        ("", ()),
        ("a (red) cat", (Piece("a "), Piece("red", 1.1), Piece(" cat"))),
        ("a (red:1.3)cat", (Piece("a "), Piece("red", 1.3), Piece("cat"))),
        ("a (red : 1.3 )", (Piece("a "), Piece("red ", 1.3))),
        ("[red]", (Piece("red", 1 / 1.1),)),
        (r"\(red\) \[x\] \\ \a", (Piece(r"(red) [x] \ \a"),)),
        # Without a partner a bracket is text, and so is a weight.
        ("a (red", (Piece("a (red"),)),
        ("red) ] a:1.2)", (Piece("red) ] a:1.2)"),)),
        (":( and :)", (Piece(":"), Piece(" and :", 1.1))),  # partners like all others
        ("(a [b) c]", (Piece("a [b", 1.1), Piece(" c]"))),
        ("()[](:2)", ()),
    ],
)
def test_examples(prompt: str, expected: tuple[Piece, ...]) -> None:
    assert parse(prompt) == (expected,)


def test_break_parts_sections_and_plain_parts_nothing() -> None:
    assert parse("a BREAK (b BREAK c:2) d") == (
        (Piece("a"),), (Piece("b", 2.0),), (Piece("c", 2.0), Piece(" d")),
    )  # fmt: skip
    assert parse("a BREAK") == ((Piece("a"),),)
    assert parse("BREAKFAST break") == ((Piece("BREAKFAST break"),),)
    assert parse("(a:2) BREAK \\(", "plain") == ((Piece("(a:2) BREAK \\("),),)


@pytest.mark.parametrize(
    "prompt", ["(a:1e999)", "(a:101)", "(a:-1e3)", "((((a:50):50)))", "(" * 4000 + "a" + ")" * 4000]
)
def test_weights_out_of_range_are_told(prompt: str) -> None:
    with pytest.raises(ParameterError, match="weight") as caught:
        parse(prompt)
    assert caught.value.parameter == "prompt" and len(str(caught.value)) < 200


@pytest.mark.parametrize("prompt", ["(" * 10_000, ")" * 10_000, "[(" * 5000, "(" + "[" * 4999 + ")" * 5000])
def test_brackets_without_end_cost_little(prompt: str) -> None:
    began = time.process_time()
    parse(prompt)
    assert time.process_time() - began < 2


@settings(max_examples=200, deadline=None)
@given(text=st.text("ab ()[]:.19\\BREAK", max_size=40))
def test_any_text_is_read_and_no_word_is_lost(text: str) -> None:
    sections = parse(text)
    assert all(math.isfinite(piece.weight) for section in sections for piece in section)
    letters = [c for c in text.replace("BREAK", "") if c in "abK"]
    assert [c for s in sections for p in s for c in p.text.replace("BREAK", "") if c in "abK"] == letters


# Chunks


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return Tokenizer(clip())


def inner(words: Tokenizer, prompt: str, length: int = 77, **names: object) -> list[list[int]]:
    """The ids of each chunk without start, end and padding."""
    rows = []
    for chunk in chunked(words, parse(prompt), length, names.get("names", {})):  # type: ignore[arg-type]
        assert len(chunk.ids) == len(chunk.weights) == length and chunk.ids[0] == words.start[0]
        end = chunk.ids.index(words.end)
        assert set(chunk.ids[end:]) == {words.end} and set(chunk.weights[end:]) <= {1.0}
        rows.append(list(chunk.ids[1:end]))
    return rows


def expected_chunks(ids: list[int], room: int, comma: int) -> list[list[int]]:
    """The rule in other words: cut before the token that does not fit; if that is no comma and there is one
    among the last `BACK` tokens, cut behind it instead."""
    rows = []
    while len(ids) > room:
        cut = room
        if ids[room] != comma:
            near = [i for i in range(room) if ids[i] == comma and room - i <= BACK]
            cut = near[-1] + 1 if near else room
        rows.append(ids[:cut])
        ids = ids[cut:]
    return [*rows, ids]


@settings(max_examples=100, deadline=None)
@given(
    picks=st.lists(
        st.sampled_from(["cat", ",", "dog", "house", "tree", "red", "masterpieces"]), max_size=300
    ),
    length=st.sampled_from([77, 40, 24]),
)
def test_long_prompts_are_cut_at_commas(words: Tokenizer, picks: list[str], length: int) -> None:
    prompt = " ".join(picks)
    ids = list(words.encode(prompt))
    assert inner(words, prompt, length) == expected_chunks(ids, length - 2, words.comma or -1)


@settings(max_examples=60, deadline=None)
@given(weights=st.lists(st.sampled_from([None, 0.5, 1.3]), min_size=1, max_size=30))
def test_each_token_has_the_weight_of_its_word(words: Tokenizer, weights: list[float | None]) -> None:
    vocabulary = ["cat", "dog", "masterpieces", "wolfdogs", "naïveté"]
    pairs = [(vocabulary[i % 5], w) for i, w in enumerate(weights)]
    prompt = " ".join(word if w is None else f"({word}:{w})" for word, w in pairs)
    expected = [w or 1.0 for word, w in pairs for _ in words.encode(word)]
    (chunk,) = chunked(words, parse(prompt), 200)
    assert list(chunk.weights[1 : len(expected) + 1]) == expected
    assert chunk.ids == words.padded(words.encode(" ".join(word for word, _ in pairs)), 200)


def test_brackets_inside_a_word_change_no_token(words: Tokenizer) -> None:
    (chunk,) = chunked(words, parse("master(piec:2)es"), 10)
    assert chunk.ids == words.padded(words.encode("masterpieces"), 10)


def test_break_begins_a_new_chunk(words: Tokenizer) -> None:
    assert inner(words, "cat BREAK dog, tree") == [list(words.encode("cat")), list(words.encode("dog, tree"))]
    assert inner(words, "BREAK cat") == [[], list(words.encode("cat"))]
    assert inner(words, "") == [[]] and empty(words, 9).ids == words.padded((), 9)


def test_names_stand_for_their_vectors_and_stay_together(words: Tokenizer) -> None:
    names = {"my-cat": [49408, 49409], "my-cat2": [49410]}
    assert inner(words, "a (MY-CAT:2), my-cat2 xmy-cat my-cats", names=names)[0][:5] == [
        320, 49408, 49409, 267, 49410,
    ]  # fmt: skip
    rows = inner(words, "cat " * 74 + "my-cat", names=names)
    assert len(rows[0]) == 74 and rows[1] == [49408, 49409]
    (chunk,) = chunked(words, parse("(my-cat:2) x"), 9, names)
    assert chunk.weights[:4] == (1.0, 2.0, 2.0, 1.0)
    with pytest.raises(ParameterError, match="vectors"):
        chunked(words, parse("big"), 77, {"big": range(76)})


def test_one_chunk_says_what_it_lost(words: Tokenizer) -> None:
    chunk = single(words, parse("a photo (of:2) a BREAK red cat"), 6)
    assert chunk.ids == words.padded(words.encode("a photo of a"), 6)
    assert chunk.weights == (1.0, 1.0, 1.0, 2.0, 1.0, 1.0) and chunk.lost == "red cat"


# Prompts that change


@pytest.mark.parametrize(
    "prompt,expected",
    [
        # As the web interface's own documentation has them, for ten steps.
        ("test", [(10, "test")]),
        ("a [b:3]", [(3, "a "), (10, "a b")]),
        ("a [b: 3]", [(3, "a "), (10, "a b")]),
        ("a [[[b]]:2]", [(2, "a "), (10, "a [[b]]")]),
        ("[(a:2):3]", [(3, ""), (10, "(a:2)")]),
        ("a [b : c : 1] d", [(1, "a b  d"), (10, "a  c  d")]),
        ("a[b:[c:d:2]:1]e", [(1, "abe"), (2, "ace"), (10, "ade")]),
        ("a [unbalanced", [(10, "a [unbalanced")]),
        ("a [b:.5] c", [(5, "a  c"), (10, "a b c")]),
        ("((a][:b:c [d:3]", [(3, "((a][:b:c "), (10, "((a][:b:c d")]),
        ("[fe|]male", [(n, "male" if n % 2 == 0 else "female") for n in range(1, 11)]),
        (
            "[fe|||]male",
            [(1, "female"), (4, "male"), (5, "female"), (8, "male"), (9, "female"), (10, "male")],
        ),
        # And the rest.
        ("[a::0.2]", [(2, "a"), (10, "")]),
        ("[a:b:99]", [(10, "a")]),
        ("[a:b:0]", [(10, "b")]),
        ("[a:b] [a] [a:b|c:0.5] (a:1.2)", [(10, "[a:b] [a] [a:b|c:0.5] (a:1.2)")]),
        (r"\[a:b:3\]", [(10, r"\[a:b:3\]")]),
        ("[(a:b):c:4]", [(4, "(a:b)"), (10, "c")]),
    ],
)
def test_prompts_that_change(prompt: str, expected: list[tuple[int, str]]) -> None:
    assert list(scheduled(prompt, 10)) == expected


@settings(max_examples=200, deadline=None)
@given(prompt=st.text("ab ()[]:|.19\\", max_size=30), steps=st.integers(1, 6))
def test_any_text_has_a_schedule(prompt: str, steps: int) -> None:
    found = scheduled(prompt, steps)
    ends = [end for end, _ in found]
    assert ends == sorted(set(ends)) and ends[-1] == steps and ends[0] >= 1
    if "[" not in prompt:
        assert found == ((steps, prompt),)


def test_brackets_without_end_have_a_limit() -> None:
    with pytest.raises(ParameterError, match="levels deep"):
        scheduled("[" * 40 + "a" + "]" * 40, 10)
    assert scheduled("[" * 10_000, 3) == ((3, "[" * 10_000),)
