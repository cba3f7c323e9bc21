"""Draw the wall of pictures in the README: python scripts/make_wall.py [--model NAME] [--out FILE] [--seed N]

The prompts are fixed and the pictures are those of one seed after the other: nothing is picked by hand.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pictura
from pictura.picture.files import atomic

ROOT = Path(__file__).parents[1]
COLUMNS = 8
PROMPTS = (
    "a cat left of a pizza on a blue background",
    "a rocket",
    "three stars on a purple background",
    "an umbrella above a castle",
    "two owls",
    "a dog right of a guitar on a yellow background",
    "four strawberries on a pink background",
    "a whale below a ship",
    "a penguin on a gray background",
    "a tractor left of a pine tree on a green background",
    "a crown above a frog",
    "three pineapples",
    "a fox on a white background",
    "a sailboat below a rainbow on a blue background",
    "two bicycles on a red background",
    "a ghost right of a pumpkin on a purple background",
    "an octopus",
    "four tulips on a green background",
    "a dinosaur below a volcano",
    "a trumpet left of a violin on a pink background",
    "a hedgehog on a yellow background",
    "two croissants",
    "a bee above a sunflower on a blue background",
    "a snail right of a mushroom",
)


def main() -> None:
    """Draw every prompt and store the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="scenes", help="a preset's name or folder")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "wall.png", help="the sheet, a PNG file")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first picture")
    given = parser.parse_args()
    model = pictura.TextToImage.from_preset(given.model, history=False)
    sheet = model.generate(list(PROMPTS), seed=given.seed).grid(columns=COLUMNS, gap=4)
    with atomic(given.out, overwrite=True) as file:
        sheet.save(file, "PNG", optimize=True)
    print(given.out)


if __name__ == "__main__":
    main()
