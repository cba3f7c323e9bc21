"""What a scene is, how it is told in words, and which scenes are kept from training.

A scene has a plain background and one to four objects: a single object, two objects in a relation, or
two to four of the same. `sample` draws one, `captions` tells it in every phrasing we know, `layout`
says where the objects stand, `held_out` whether training may see it, `parse` reads a caption back.
"""

from __future__ import annotations

import functools
import hashlib
import random
import re
from dataclasses import dataclass
from importlib import resources

from pictura.errors import InputError

CANVAS = 128
OBJECT = 64  # side of an object, pixels
PATCH = 16  # label maps are per patch of this side
ANCHORS = (48, 64, 80)  # free coordinate of a centre; only 64 when places are fixed

COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "gray": (160, 160, 165),
    "red": (235, 110, 110),
    "yellow": (250, 220, 110),
    "green": (130, 205, 130),
    "blue": (120, 170, 240),
    "purple": (175, 130, 220),
    "pink": (250, 185, 210),
}
RELATIONS: dict[str, str] = {"left": "left of", "right": "right of", "above": "above", "below": "below"}
PHRASES: dict[str, tuple[str, ...]] = {  # ways to tell a relation, the basic one first
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over", "on top of"),
    "below": ("below", "under", "beneath"),
}
NUMBERS: dict[int, str] = {2: "two", 3: "three", 4: "four"}


@dataclass(frozen=True, slots=True)
class Thing:
    """One row of the vocabulary: the emoji and its English names."""

    codepoint: int
    singular: str
    plural: str


class CaptionError(InputError):
    """The text is not a caption of a scene; the message says what was not understood."""


@functools.cache
def things() -> tuple[Thing, ...]:
    """The 240 objects, in the order that label maps and atlas use."""
    text = resources.files(__package__).joinpath("vocabulary.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines()[1:])
    return tuple(Thing(int(code, 16), singular, plural) for code, _, singular, plural in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """`objects` are indices into `things()`: one for "single" and "count", two for "relation" in the
    order of the caption. `places` is the centre (x, y) in pixels of each object drawn, back to front.
    `background` is always set; `told` says whether the caption names it."""

    kind: str
    objects: tuple[int, ...]
    number: int = 1
    relation: str = ""
    background: str
    told: bool
    places: tuple[tuple[int, int], ...]

    def drawn(self) -> tuple[tuple[int, int, int], ...]:
        """(object, x, y) of everything on the canvas, back to front."""
        names = self.objects * self.number if self.kind == "count" else self.objects
        return tuple((o, x, y) for o, (x, y) in zip(names, self.places, strict=True))


def article(name: str) -> str:
    """ "a" or "an", as `name` wants it."""
    return "an" if name[0] in "aeio" or name == "umbrella" else "a"


def held_out(first: str, axis: str, second: str) -> bool:
    """True for the 9.9 % of combinations that training never draws.

    `first` is the left or upper object's singular name, `axis` "h" or "v".
    """
    digest = hashlib.sha256(f"{first}|{axis}|{second}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % 10 == 0


def is_held_out(scene: Scene) -> bool:
    """Whether training may never see `scene`; only scenes with a relation are held out."""
    if scene.kind != "relation":
        return False
    a, b = (things()[o].singular for o in scene.objects)
    first, second = (a, b) if scene.relation in ("left", "above") else (b, a)
    return held_out(first, "h" if scene.relation in ("left", "right") else "v", second)


def layout(kind: str, number: int, relation: str, free: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Centres of the objects, in caption order; `free` are the two free coordinates (of `ANCHORS`)."""
    f, g = free
    if kind == "single":
        return ((f, g),)
    if kind == "count":
        return {
            2: ((32, f), (96, g)),
            3: ((f, 32), (32, 96), (96, 96)),
            4: ((32, 32), (96, 32), (32, 96), (96, 96)),
        }[number]
    return {
        "left": ((32, f), (96, g)),
        "right": ((96, f), (32, g)),
        "above": ((f, 32), (g, 96)),
        "below": ((f, 96), (g, 32)),
    }[relation]


def sample(rng: random.Random, split: str = "train", *, fixed_places: bool = False) -> Scene:
    """Draw a scene: 35 % single, 45 % relation, 20 % count; background told half of the time.

    `split`: "train" and "validation" never draw held-out combinations; "held-out" draws only those.
    """
    while True:
        share = rng.random()
        kind = "single" if share < 0.35 else "relation" if share < 0.8 else "count"
        if split == "held-out":
            kind = "relation"
        n = len(things())
        relation, number = "", 1
        objects: tuple[int, ...] = (rng.randrange(n),)
        if kind == "relation":
            other = rng.randrange(n - 1)
            objects = (objects[0], other + (other >= objects[0]))
            relation = rng.choice(tuple(RELATIONS))
        elif kind == "count":
            number = rng.choice(tuple(NUMBERS))
        anchors = (OBJECT,) if fixed_places else ANCHORS
        scene = Scene(
            kind=kind,
            objects=objects,
            number=number,
            relation=relation,
            background=rng.choice(tuple(COLOURS)),
            told=rng.random() < 0.5,
            places=layout(kind, number, relation, (rng.choice(anchors), rng.choice(anchors))),
        )
        if is_held_out(scene) == (split == "held-out"):
            return scene


def caption(scene: Scene) -> str:
    """The basic caption: "a cat left of an apple on a blue background"."""
    return captions(scene)[0]


def captions(scene: Scene) -> tuple[str, ...]:
    """Every phrasing of `scene`, the basic one first."""
    names = [things()[o] for o in scene.objects]
    a = f"{article(names[0].singular)} {names[0].singular}"
    if scene.kind == "single":
        bodies = [a, f"one {names[0].singular}", f"there is {a}", f"a picture of {a}"]
    elif scene.kind == "count":
        word, plural = NUMBERS[scene.number], names[0].plural
        bodies = [
            f"{word} {plural}",
            f"{scene.number} {plural}",
            f"there are {word} {plural}",
            f"a picture of {word} {plural}",
        ]
    else:
        b = f"{article(names[1].singular)} {names[1].singular}"
        told = PHRASES[scene.relation]
        bodies = [f"{a} {relation} {b}" for relation in told] + [f"there is {a} {told[0]} {b}"]
    if not scene.told:
        return tuple(bodies)
    colour = scene.background
    return tuple(f"{body} on a {colour} background" for body in bodies) + (
        f"{bodies[0]} on {colour}",
        f"{bodies[0]} with a {colour} background",
        f"on a {colour} background, {bodies[0]}",
        f"{colour} background: {bodies[0]}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a caption asks for: a `Scene` without what it leaves open. `background` is None when untold."""

    kind: str
    objects: tuple[int, ...]
    number: int = 1
    relation: str = ""
    background: str | None = None


def parse(text: str) -> Wish:
    """What `text` asks for; the inverse of `captions`, whatever the case and spacing.

    Raises `CaptionError` naming the first part that is not in the grammar.
    """
    told = " ".join(text.lower().split()).rstrip(".")
    if not told:
        raise CaptionError("the caption is empty; write for example 'a cat left of a dog'")
    body, background = _split_background(told)
    for opening in ("there is ", "there are ", "a picture of "):
        body = body.removeprefix(opening)
    for relation, phrases in PHRASES.items():
        for phrase in sorted(phrases, key=len, reverse=True):
            left, found, right = body.partition(f" {phrase} ")
            if found:
                objects = (_one(left), _one(right))
                return Wish(kind="relation", objects=objects, relation=relation, background=background)
    number = next((n for n, word in NUMBERS.items() if body.split(" ")[0] in (word, str(n))), 1)
    if number == 1:
        return Wish(kind="single", objects=(_one(body),), background=background)
    plural = body.partition(" ")[2]
    known = {thing.plural: index for index, thing in enumerate(things())}
    if plural not in known:
        raise CaptionError(f"{plural!r} is not the plural of an object of the vocabulary")
    return Wish(kind="count", objects=(known[plural],), number=number, background=background)


def _split_background(told: str) -> tuple[str, str | None]:
    colour = "(" + "|".join(COLOURS) + ")"
    for form in (
        rf"on an? {colour} background, (?P<body>.+)",
        rf"{colour} background: (?P<body>.+)",
        rf"(?P<body>.+) (?:on|with) an? {colour} background",
        rf"(?P<body>.+) on {colour}",
    ):
        if match := re.fullmatch(form, told):
            return match["body"], next(c for c in match.groups() if c in COLOURS)
    return told, None


def _one(phrase: str) -> int:
    name = re.sub(r"^(an?|one|the) ", "", phrase)
    for index, thing in enumerate(things()):
        if thing.singular == name:
            return index
    raise CaptionError(f"{phrase!r} is not one object of the vocabulary")
