"""A captioned picture data set by a distilabel pipeline with the built-in model.

    pip install 'pictura[local,distilabel]'
    python examples/distilabel_pictures.py OUT

The data set in OUT has the columns prompt and image (pictures, not text) and is read again with
`datasets.load_from_disk("OUT")`. Run it twice: the second time the pictures come from distilabel's cache.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

from datasets import Dataset
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts

from pictura.integrations.distilabel import ImageGeneration, PicturaImageGeneration, to_pictures

OBJECTS, BACKGROUNDS = ["cat", "rocket", "pizza"], ["blue", "yellow"]


def main(out: Path) -> Dataset:
    captions = [f"a {thing} on a {colour} background" for thing, colour in product(OBJECTS, BACKGROUNDS)]
    with Pipeline(name="captioned-pictures", cache_dir=out.parent / "distilabel-cache") as pipeline:
        load = LoadDataFromDicts(data=[{"prompt": caption} for caption in captions])
        draw = ImageGeneration(
            name="draw",
            image_generation_model=PicturaImageGeneration(model="scenes", seed=7, num_steps=8),
            input_batch_size=16,
            num_generations=2,
            add_raw_output=False,  # or every picture is kept twice
        )
        load >> draw

    rows = pipeline.run()["default"]["train"]
    data = to_pictures(rows.select_columns(["prompt", "image"]))
    data.save_to_disk(out)
    return data


if __name__ == "__main__":
    print(main(Path(sys.argv[1]).absolute()))
