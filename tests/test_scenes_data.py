"""The scenes data set: fixed facts, splits, renderer, tokenizer."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFont

from pictura.datasets.scenes.grammar import COLOURS, caption, captions, held_out, is_held_out, things
from pictura.datasets.scenes.render import NONE, WHOLE, cut_sprite, labels, render, sprites
from pictura.datasets.scenes.stream import example
from pictura.datasets.scenes.words import LENGTH, ROWS, word_list

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
MANY = [example(i) for i in range(3000)]


def test_the_vocabulary_has_240_objects_with_distinct_names() -> None:
    assert len(things()) == 240
    assert len({t.codepoint for t in things()}) == 240
    assert len({t.singular for t in things()}) == 240
    assert things()[6].singular == "cat"


def test_held_out_combinations_are_the_published_share_of_all() -> None:
    names = [t.singular for t in things()]
    count = sum(held_out(a, axis, b) for a, b in permutations(names, 2) for axis in "hv")
    assert 240 * 239 * 2 == 114_720
    assert abs(count / 114_720 - 0.099) < 0.001


def test_training_never_sees_a_held_out_combination_and_the_test_split_nothing_else() -> None:
    assert not any(is_held_out(e.scene) for e in MANY)
    assert not any(is_held_out(example(i, "validation").scene) for i in range(500))
    assert all(is_held_out(example(i, "held-out").scene) for i in range(300))


def test_mirrored_captions_are_held_out_together() -> None:
    for e in (example(i, "held-out") for i in range(100)):
        a, b = (things()[o].singular for o in e.scene.objects)
        first, second = (a, b) if e.scene.relation in ("left", "above") else (b, a)
        assert held_out(first, "h" if e.scene.relation in ("left", "right") else "v", second)


def test_kinds_and_told_backgrounds_have_their_shares() -> None:
    shares = Counter(e.scene.kind for e in MANY)
    # Held-out relation scenes are drawn again, so relations lose a tenth of their 45 %.
    total = 0.35 + 0.45 * 0.901 + 0.2
    for kind, share in {"single": 0.35, "relation": 0.45 * 0.901, "count": 0.2}.items():
        assert abs(shares[kind] / len(MANY) - share / total) < 0.03
    assert abs(np.mean([e.scene.told for e in MANY]) - 0.5) < 0.03


def test_an_example_is_the_same_in_every_process() -> None:
    program = (
        "import hashlib; from pictura.datasets.scenes.stream import example\n"
        "h = hashlib.sha256()\n"
        "for i in range(20):\n"
        "    e = example(i, 'validation'); h.update(e.prompt.encode() + e.image().tobytes())\n"
        "print(h.hexdigest())"
    )
    digest = hashlib.sha256()
    for i in range(20):
        e = example(i, "validation")
        digest.update(e.prompt.encode() + e.image().tobytes())
    env = {**os.environ, "PYTHONHASHSEED": "77"}
    other = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env
    )
    assert other.stdout.strip() == digest.hexdigest()


def test_patches_without_an_object_are_plain_background_and_labelled_pieces_lie_in_place() -> None:
    for e in MANY[:60]:
        image, (objects, pieces) = e.image(), labels(e.scene)
        plain = np.array(COLOURS[e.scene.background])
        for patch in range(64):
            y, x = patch // 8 * 16, patch % 8 * 16
            tile = image[y : y + 16, x : x + 16].astype(int)
            if objects[patch] == NONE:
                assert pieces[patch] == WHOLE
                assert (tile == plain).all()
            else:
                row, column = divmod(int(pieces[patch]), 4)
                sprite = sprites()[objects[patch], row * 16 :, column * 16 :][:16, :16].astype(float)
                expected = plain * (1 - sprite[..., 3:] / 255) + sprite[..., :3]
                assert np.abs(tile - expected.clip(0, 255)).max() <= 1


def test_the_atlas_is_the_font() -> None:
    if not FONT.exists():
        pytest.skip("Noto Color Emoji is not installed")
    font = ImageFont.truetype(FONT, 109)
    worst = max(
        np.abs(cut_sprite(font, t.codepoint).astype(int) - s.astype(int)).mean()
        for t, s in list(zip(things(), sprites(), strict=True))[::12]
    )
    assert worst < 4  # another version of the font may redraw a glyph a little


def test_rendering_leaves_the_sprites_alone() -> None:
    before = sprites().copy()
    render(MANY[0].scene)
    assert (sprites() == before).all()


def test_the_tokenizer_has_the_284_entries_and_room_to_learn() -> None:
    words = word_list()
    assert len(words.entries) == len(set(words.entries)) == 284
    assert len(word_list(["blorb"]).entries) == 285 <= ROWS


def test_every_name_is_read_in_singular_and_plural() -> None:
    words = word_list()
    for thing in things():
        one = words.encode(thing.singular)
        assert [words.entries[i] for i in one.ids] == thing.singular.split()
        many = words.encode(thing.plural)
        marked = ["+s"] if thing.plural != thing.singular else []
        assert [words.entries[i] for i in many.ids] == thing.singular.split() + marked


def test_no_caption_is_too_long_or_holds_an_unknown_word() -> None:
    words = word_list()
    for e in MANY[:600]:
        for text in captions(e.scene):
            tokens = words.encode(text)
            assert not tokens.unknown and not tokens.dropped and len(tokens.ids) <= LENGTH


def test_phrasings_say_the_same_and_other_scenes_do_not() -> None:
    words = word_list()
    for e in MANY[:300]:
        basic = words.encode(caption(e.scene))
        bag = {i for i in basic.ids} - {words.ids["on"]}
        for text in captions(e.scene):
            assert {i for i in words.encode(text).ids} - {words.ids["on"]} == bag
    assert words.encode("a cat left of a dog").ids != words.encode("a dog left of a cat").ids


def test_words_that_are_not_there_are_told() -> None:
    tokens = word_list().encode("A Zeppelin over the cat, please!")
    assert tokens.unknown == ("zeppelin", "please")
    assert len(tokens.ids) == 2
