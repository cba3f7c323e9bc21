"""Choices, wildcards and styles: from the prompt that was written to the one that is drawn."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import permutations, product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pictura import ParameterError, Request
from pictura.inputs import Call, Model, complete, items
from pictura.text import styles
from pictura.text.dynamic import all_of, one_of
from pictura.text.wildcards import Wildcards
from pictura.text.wording import combinations, worded


def nothing(name: str) -> list[str]:
    raise AssertionError(f"wildcard {name} was asked for")


def chosen(prompt: str, lines: object = nothing, count: int = 300) -> set[str]:
    return {one_of(prompt, seed, lines) for seed in range(count)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "prompt,expected",
    [
        ("a {red|blue} cat", ["a red cat", "a blue cat"]),
        ("{ a | b }", ["a", "b"]),
        ("{|very} big", [" big", "very big"]),
        ("{a|{b|c} d}", ["a", "b d", "c d"]),
        ("{a|b} {c|d}", ["a c", "a d", "b c", "b d"]),
        ("{0-1$$a|b}", ["", "a", "b"]),
        ("{2$$-$$a|b}", ["a-b"]),
        ("{3::a|b}", ["a", "b"]),
        (r"\{a\|b\} {c|\|}", ["{a|b} c", "{a|b} |"]),
        # No choices: text.
        ("{a}", ["{a}"]),
        ("} a | b {", ["} a | b {"]),
        ("{a {b|c}}", ["{a b}", "{a c}"]),
        ("snake_case __ x__", ["snake_case __ x__"]),
    ],
)
def test_all_prompts_of_a_template(prompt: str, expected: list[str]) -> None:
    assert list(all_of(prompt, nothing)) == expected
    drawn = chosen(prompt)
    swapped = {"-".join(p) for p in permutations("ab")} if "$$-$$" in prompt else set(expected)
    assert drawn == swapped


def test_how_often_each_choice_is_made() -> None:
    n = 4000
    for prompt, shares in [
        ("{3::a|b}", {"a": 0.75, "b": 0.25}),
        ("{a|b|c|d}", dict.fromkeys("abcd", 0.25)),
        ("{2$$$$a|b|c}", {"".join(p): 1 / 6 for p in permutations("abc", 2)}),
        ("{0::a|b}", {"b": 1.0}),
    ]:
        found = Counter(one_of(prompt, seed, nothing) for seed in range(n))
        assert set(found) == set(shares)
        for text, share in shares.items():
            assert abs(found[text] / n - share) < 5 * math.sqrt(share / n)


def test_a_seed_chooses_the_same_everywhere() -> None:
    prompt = "{a|b|c} {2$$x|y|z} {5::p|q}"
    drawn = [one_of(prompt, seed, nothing) for seed in (0, 1, 7, 2**63 - 1)]
    assert drawn == ["c z, x p", "a z, y p", "a x, z p", "a y, z p"]


@settings(max_examples=300, deadline=None)
@given(prompt=st.text("ab{}|_$:12- \\", max_size=30), seed=st.integers(0, 2**63 - 1))
def test_any_text_gives_a_prompt_or_a_sentence(prompt: str, seed: int) -> None:
    try:
        found = one_of(prompt, seed, lambda name: ["x"])
    except ParameterError as error:
        assert "\n" not in str(error)
    else:
        if not set(prompt) & set("{}\\") and "__" not in prompt:
            assert found == prompt
        assert one_of(prompt, seed, lambda name: ["x"]) == found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "cards"
    (root / "deep").mkdir(parents=True)
    (root / "animal.txt").write_text("# which\n\ncat\n  dog \n2::{big|small} fox\n", encoding="utf-8")
    (root / "deep" / "scene.txt").write_text("__animal__ left of a __deep/thing__\n")
    (root / "deep" / "thing.txt").write_bytes("\ufeffpizza\r\nnaïve tree".encode())
    (root / "empty.txt").write_text("# nothing\n")
    (root / "loop.txt").write_text("a __loop__\n")
    (root / "wide.txt").write_text("__wide2____wide2____wide2__\n")
    (root / "wide2.txt").write_text("x" * 5000 + "\n")
    (root / "bomb.txt").write_text("{9$$" + "|".join(["__bomb__"] * 9) + "}\n")
    (root / "latin.txt").write_bytes(b"\xff\xfe\xff")
    return root


def test_wildcards_are_lines_of_files(folder: Path) -> None:
    lines = Wildcards(folder)
    things = ["pizza", "naïve tree"]
    animals = ["cat", "dog", "big fox", "small fox"]
    expected = [f"a {animal} left of a {thing}" for animal, thing in product(animals, things)]
    assert list(all_of("a __deep/scene__", lines)) == expected
    assert chosen("a __deep/scene__", lines) == set(expected)
    assert lines.names()[:3] == ["animal", "bomb", "deep/scene"]
    (folder / "animal.txt").write_text("owl\n")
    assert one_of("__animal__", 1, Wildcards(folder)) == "owl"


@pytest.mark.parametrize(
    "prompt,message",
    [
        ("__animals__", "did you mean 'animal'"),
        ("__empty__", "empty"),
        ("__loop__", "levels deep"),
        ("__bomb__", "levels deep|choices"),
        ("__wide__", "longer than"),
        ("__latin__", "UTF-8"),
        ("{4$$a|b}", "4.* of 2"),
        ("{3-2$$a|b|c}", "smaller first"),
        ("{" * 40 + "a|b" + "|x}" * 40, "levels deep"),
        ("{a|b} " * 300, "would never end"),
    ],
)
def test_what_cannot_be_chosen_is_told(folder: Path, prompt: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        one_of(prompt, 1, Wildcards(folder))
        list(all_of(prompt, Wildcards(folder)))


def test_wildcards_stay_in_their_folder(folder: Path) -> None:
    (folder.parent / "secret.txt").write_text("secret")
    for name in ("../secret", "deep/../../secret", "/etc/passwd"):
        prompt = f"__{name}__"
        try:
            assert "secret" not in one_of(prompt, 1, Wildcards(folder)).replace(name, "")
        except ParameterError as error:
            assert "no file" in str(error)
    with pytest.raises(ParameterError, match="no folder"):
        Wildcards(folder / "animal.txt")
    with pytest.raises(ParameterError, match="--wildcards"):
        worded(Request(prompt="a __animal__", seed=1))


# Styles


def test_our_styles_have_a_place_for_the_prompt() -> None:
    ours = styles.load()
    assert len(ours) > 10
    for style in ours.values():
        assert style.prompt.count("{prompt}") == 1 and style.negative_prompt
        assert "{" not in style.prompt.replace("{prompt}", "") and "(" not in style.prompt


def test_styles_go_around_the_prompt(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(
        json.dumps({"a": {"prompt": "A {prompt} B", "negative_prompt": "bad"}, "b": {"prompt": "C"}})
    )
    known = styles.load(file)
    assert styles.applied(["a", "b"], known, "cat", None) == ("A cat B, C", "bad")
    assert styles.applied(["b"], known, "", "dog") == ("C", "dog")
    assert styles.applied(["a"], known, "x", "dog") == ("A x B", "dog, bad")
    with pytest.raises(ParameterError, match="did you mean 'photo'"):
        styles.applied(["phto"], known, "x", None)


def test_a_styles_csv_is_read(tmp_path: Path) -> None:
    file = tmp_path / "styles.csv"
    file.write_bytes('\ufeffname,prompt,negative_prompt\r\nx,"a, {prompt}",\r\ny,,"n, m"\r\n'.encode())
    assert styles.read(file) == {
        "x": styles.Style(prompt="a, {prompt}"), "y": styles.Style(negative_prompt="n, m"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "name,data",
    [
        ("a.json", b"[]"), ("a.json", b"{"), ("a.json", b'{"a": 1}'), ("a.json", b'{"a": {"prompt": 1}}'),
        ("a.json", b"\xff"), ("a.csv", b"a,b\n1,2"), ("a.csv", b'name\n"'), ("missing/a.json", None),
        ("a.json", b"[" * 100_000), ("big.json", b" " * (4 * 2**20 + 1)),
    ],
)  # fmt: skip
def test_broken_style_files_are_told(tmp_path: Path, name: str, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ParameterError, match="styles: ") as caught:
        styles.read(tmp_path / name)
    assert "\n" not in str(caught.value)


# Requests


class Draws:
    """A model that uses some parameters, as completing a request sees it."""

    options: dict[str, object] = {}

    def __init__(self, *parameters: str) -> None:
        self.parameters = frozenset(parameters)

    def check(self, request: Request) -> None:
        if request.negative_prompt and "guidance_scale" not in self.parameters:
            raise ParameterError("negative_prompt does nothing", parameter="negative_prompt")


def model(*parameters: str, **more: object) -> Model:
    return Model(name="m", family=Draws(*parameters), defaults={}, **more)  # type: ignore[arg-type]


def test_a_request_records_what_was_written_and_what_is_drawn() -> None:
    done, ignored = complete(Request(prompt="a {cat|dog}", seed=1), model())
    assert (done.prompt, dict(done.options), ignored) == ("a cat", {"template": "a {cat|dog}"}, ())
    again, _ = complete(done, model())
    assert again == done
    plain, _ = complete(Request(prompt="a cat, (red:1.2)", seed=1), model())
    assert plain.prompt == "a cat, (red:1.2)" and plain.options == {}


def test_nothing_is_special_in_plain_syntax() -> None:
    request = Request(prompt="a {cat|dog} __x__ \\{", seed=1, options={"prompt_syntax": "plain"})
    assert complete(request, model())[0] == Request(**{**request.to_dict(), "model": "m"})


def test_styles_are_put_around_once() -> None:
    both = model("negative_prompt", "guidance_scale")
    request = Request(prompt="{cat|dog}", seed=2, negative_prompt="red", options={"style": ["ink", "poster"]})
    done, ignored = complete(request, both)
    assert done.prompt.startswith("screen-printed poster of ink drawing of dog,") and ignored == ()
    assert done.negative_prompt == "red, photograph, colour, 3d render, photograph, 3d render, clutter"
    assert done.options["template"] == "{cat|dog}" and done.options["negative_template"] == "red"
    assert complete(done, both)[0] == done


@pytest.mark.parametrize("parameters", [(), ("negative_prompt",)])
def test_the_negative_side_of_a_style_is_left_out_where_it_does_nothing(parameters: tuple[str, ...]) -> None:
    request = Request(prompt="cat", seed=2, options={"style": "ink"})
    done, ignored = complete(request, model(*parameters))
    assert done.negative_prompt is None and ignored == ("negative_prompt",)
    assert done.prompt.startswith("ink drawing of cat") and "negative_template" not in done.options
    with pytest.raises(ParameterError, match="negative_prompt"):
        complete(Request(prompt="cat", negative_prompt="x", options={"style": "ink"}), model(*parameters))


def test_each_picture_makes_its_own_choice(folder: Path) -> None:
    call = Call(seed=0, num_images=12, wildcards=folder)
    prompts = [item.request.prompt for item in items(["__animal__", "{a|b}"], None, call, model())]
    assert len(set(prompts[:12])) >= 3 and set(prompts[12:]) == {"a", "b"}
    assert prompts[0] == one_of("__animal__", 0, Wildcards(folder))


def test_a_model_without_seeds_records_the_one_that_chose() -> None:
    done, _ = complete(Request(prompt="{a|b|c|d}"), model(seeds=None))
    assert done.seed is None and one_of("{a|b|c|d}", done.options["template_seed"], nothing) == done.prompt
    fixed = Request(prompt="{a|b|c|d}", seed=5, options={"template_seed": 1})
    assert complete(fixed, model())[0].prompt == one_of("{a|b|c|d}", 1, nothing)


@pytest.mark.parametrize(
    "options,parameter",
    [
        ({"prompt_syntax": "compel"}, "prompt_syntax"), ({"style": 3}, "style"), ({"style": [3]}, "style"),
        ({"style": "nope"}, "style"), ({"template": 1}, "template"), ({"template_seed": -1}, "template_seed"),
        ({"template_seed": True}, "template_seed"), ({"negative_template": []}, "negative_template"),
    ],
)  # fmt: skip
def test_bad_options_are_told(options: dict[str, object], parameter: str) -> None:
    with pytest.raises(ParameterError) as caught:
        complete(Request(prompt="{a|b}", seed=1, options=options), model())
    assert caught.value.parameter == parameter


def test_combinations_are_prompts_to_draw(folder: Path) -> None:
    found = list(combinations(r"\{x\} {a|b} __deep/thing__", wildcards=folder))
    call = Call(seed=0)
    drawn = [item.request.prompt for item in items(found, None, call, model())]
    assert drawn == ["{x} a pizza", "{x} a naïve tree", "{x} b pizza", "{x} b naïve tree"]
