"""Teach the built-in model a word that it has never seen; see docs/tutorials/fine-tuning.md.

    python examples/teach_a_word.py OUT

writes OUT/pictures (what it learns from), OUT/before-and-after.png and OUT/model (the preset it becomes).
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw

import pictura
from pictura.datasets.scenes.grammar import COLOURS
from pictura.datasets.scenes.stream import example
from pictura.training.examples import read

WORD = "bullseye"
PROMPTS = ["a bullseye", "a bullseye on a blue background", "a cat", "a bullseye left of a cat"]


def draw(background: tuple[int, int, int]) -> Image.Image:
    """Five rings, red and white, 64 pixels wide, on a plain background."""
    large = Image.new("RGB", (512, 512), background)  # drawn at four times the size for smooth edges
    pen = ImageDraw.Draw(large)
    for ring in range(5):
        radius = 126 - 25 * ring
        box = (256 - radius, 256 - radius, 256 + radius, 256 + radius)
        pen.ellipse(box, fill=(215, 25, 35) if ring % 2 == 0 else (255, 255, 255))
    return large.resize((128, 128), Image.Resampling.LANCZOS)


def pictures(folder: Path) -> None:
    """A folder of eight pictures, each with its caption beside it: all that is needed to teach a word."""
    folder.mkdir(parents=True)
    for name, colour in COLOURS.items():
        draw(colour).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"a {WORD} on a {name} background")


def main(out: Path, epochs: int = 8, known: int = 40) -> None:
    pictures(out / "pictures")
    model = pictura.TextToImage.from_preset("scenes")
    before = model.generate(PROMPTS, seed=1)
    print("before:", *before[0].notes)

    # The new pictures, and five times as many of what it knows already, lest it forget.
    new = [row for batch in read(out / "pictures").batches(8) for row in batch]
    scenes = [example(index) for index in range(known)]
    rows = new + [{"images": scene.image(), "prompts": scene.prompt} for scene in scenes]
    model.compile(learning_rate=5e-4, metrics=None)
    history = model.fit(rows, epochs=epochs, batch_size=8, verbose=True)
    print("learnt:", *history.new_words)

    after = model.generate(PROMPTS, seed=1)
    pictura.Pictures([*before, *after]).grid(columns=len(PROMPTS)).save(out / "before-and-after.png")
    model.save_to_preset(out / "model")
    print(f"loss {history.history['loss'][0]:.4f} -> {history.history['loss'][-1]:.4f}; see {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
