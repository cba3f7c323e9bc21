"""`pictura compare`: the same prompts and seeds through several models, on one labelled sheet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pictura.cli.options import HistoryOption, OverwriteOption, SeedOption, ShowOption
from pictura.cli.output import checked_file, free_path
from pictura.cli.show import progress, protocol, say, show
from pictura.errors import Cancelled, ParameterError, shown
from pictura.request import Request, random_seed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import ImageDraw
    from PIL.Image import Image

GAP = 8  # pixels between pictures and around text
TEXT = 14  # height of the labels, pixels


def compare(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT...", help="What to draw, each in quotes.")],
    models: Annotated[str, typer.Option(metavar="A,B,...", help="Models, one a column.")],
    seed: SeedOption = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The sheet, a .png, .jpg or .webp file; compare.png if not given."),
    ] = None,
    overwrite: OverwriteOption = False,
    show_pictures: ShowOption = None,
    history: HistoryOption = True,
) -> None:
    """Draw the same prompts with several models, on one sheet.

    A row is a prompt, a column is a model, and all pictures of a row share their seed.
    """
    names = [name.strip() for name in models.split(",") if name.strip()]
    if not names:
        message = f"models is {shown(models)}; give names with commas between them"
        raise ParameterError(message, parameter="models")
    first = random_seed() if seed is None else Request(prompt="", seed=seed).seed
    requests = [Request(prompt=prompt, seed=first) for prompt in prompts]
    path = free_path(Path("compare.png")) if out is None else checked_file(out, overwrite)
    how = protocol(sys.stderr, wanted=show_pictures)

    from pictura.picture.files import atomic
    from pictura.task import TextToImage

    columns: list[list[Image]] = []
    with progress("compare", len(names) * len(prompts)) as bar:
        try:
            for name in names:
                model = TextToImage.from_preset(name, history=None if history else False)
                columns.append([])
                for request in requests:
                    columns[-1].append(model.generate(request, progress=False).image)
                    bar.advance()
        except KeyboardInterrupt:
            raise Cancelled("interrupted; the sheet was not complete and is not kept") from None
    image = sheet(columns, names, prompts)
    with atomic(path, overwrite=overwrite) as file:
        image.save(file, {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}.get(path.suffix.lower(), "PNG"))
    show(image, how)
    say(f"seed {first}")
    print(path)


def sheet(columns: Sequence[Sequence[Image]], titles: Sequence[str], prompts: Sequence[str]) -> Image:
    """A gray sheet: a title over each column of pictures, the row's prompt over each row."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(TEXT)
    side = max(128, *(max(image.size) for column in columns for image in column))
    width = GAP + len(columns) * (side + GAP)
    row = TEXT + GAP + side + GAP
    page = Image.new("RGB", (width, GAP + TEXT + GAP + len(prompts) * row), "gainsboro")
    draw = ImageDraw.Draw(page)
    for x, (title, column) in enumerate(zip(titles, columns, strict=True)):
        left = GAP + x * (side + GAP)
        draw.text((left, GAP), fitting(draw, title, font, side), "black", font)
        for y, image in enumerate(column):
            page.paste(image, (left, GAP + TEXT + GAP + y * row + TEXT + GAP))
    for y, prompt in enumerate(prompts):
        place = GAP, GAP + TEXT + GAP + y * row
        draw.text(place, fitting(draw, prompt, font, width - 2 * GAP), "dimgray", font)
    return page


def fitting(draw: ImageDraw.ImageDraw, text: str, font: object, width: int) -> str:
    """`text` on one line, cut with "..." to `width` pixels."""
    text = " ".join(text.split())
    short = text
    while short and draw.textlength(short if short == text else short + "...", font) > width:  # type: ignore[arg-type]
        short = short[:-1]
    return short if short == text else short + "..."
