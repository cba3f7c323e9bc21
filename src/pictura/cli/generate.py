"""`pictura generate`: prompts in, picture files out."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pictura.cli.conditioning import (
    Aspect,
    Control,
    Hires,
    Image,
    IpAdapter,
    Mask,
    Outpaint,
    Strength,
    StyleImage,
    Upscale,
    conditions,
    steering,
)
from pictura.cli.options import (
    ConfigOption,
    DtypeOption,
    GuidanceOption,
    HistoryOption,
    LowMemoryOption,
    ModelOption,
    NegativeOption,
    OverwriteOption,
    SamplerOption,
    SeedOption,
    SettingsOption,
    ShowOption,
    StepsOption,
    StrictOption,
    VariantOption,
    number,
    whole,
)
from pictura.cli.output import saver
from pictura.cli.prompts import prompts_given
from pictura.cli.service import ApiOption, BaseUrlOption, KeyOption, service_settings
from pictura.cli.show import progress, protocol, say, show
from pictura.cli.wording import (
    Combinations,
    Embeddings,
    Style,
    Styles,
    Syntax,
    Wildcards,
    all_prompts,
    text_options,
)
from pictura.errors import Cancelled, ParameterError, shown
from pictura.options import parsed_options
from pictura.request import Request

if TYPE_CHECKING:
    from pictura.picture import Event, Failure, Picture

RESERVED = set(Request.__dataclass_fields__) - {"schedule"}  # what options of the command line stand for

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one line of JSON for each picture on standard output.")
]


def generate(
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]...", help="What to draw, each in quotes.")
    ] = None,
    model: ModelOption = "scenes",
    config: ConfigOption = None,
    variant: VariantOption = None,
    dtype: DtypeOption = None,
    low_memory: LowMemoryOption = None,
    images: Annotated[int, whole("Pictures for each prompt.", "--num", "-n")] = 1,
    seed: SeedOption = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    sampler: SamplerOption = None,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Width and height in pixels, or a shape such as 3:2.")
    ] = None,
    negative: NegativeOption = None,
    prompt_file: Annotated[
        str | None,
        typer.Option("--prompts", metavar="FILE|-", help="Read prompts, one a line; - is standard input."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE|DIR", help="A .png, .jpg or .webp file, or a folder.")
    ] = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
    show_pictures: ShowOption = None,
    option: SettingsOption = None,
    lora: Annotated[
        list[str] | None, typer.Option(metavar="FILE:WEIGHT", help="Add a LoRA file at this weight.")
    ] = None,
    control: Control = None,
    style_image: StyleImage = None,
    ip_adapter: IpAdapter = None,
    image: Image = None,
    mask: Mask = None,
    strength: Strength = None,
    outpaint: Outpaint = None,
    aspect: Aspect = None,
    hires: Hires = None,
    upscale: Upscale = None,
    style: Style = None,
    styles: Styles = None,
    wildcards: Wildcards = None,
    prompt_syntax: Syntax = None,
    combinations: Combinations = False,
    embedding: Embeddings = None,
    strict: StrictOption = True,
    api: ApiOption = None,
    base_url: BaseUrlOption = None,
    api_key_env: KeyOption = None,
    history: HistoryOption = True,
) -> int:
    """Make pictures from prompts.

    Each picture is written the moment it is ready, with all its parameters inside, and its path is printed.
    """
    service = service_settings(api, base_url, api_key_env)
    size, conditioning = conditions(
        size, image=image, mask=mask, strength=strength, outpaint=outpaint, aspect=aspect, hires=hires,
        upscale=upscale,
    )  # fmt: skip
    settings: dict[str, Any] = {
        "seed": seed,
        "num_steps": steps,
        "guidance_scale": guidance,
        "sampler": sampler,
        "size": size,
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    extra = parsed_options(option or (), RESERVED) | conditioning | _loras(lora or ())
    extra |= steering(control, style_image, ip_adapter)
    extra |= text_options(style, prompt_syntax, embedding)
    if not isinstance(images, int) or images < 1:
        raise ParameterError(f"num is {shown(images)}; give a whole number, 1 or more", parameter="num")
    schedule = extra.get("schedule")
    options = {name: value for name, value in extra.items() if name != "schedule"}

    def checked(prompt: str) -> str:
        """`prompt`, if a request can be made of it; asked before torch is loaded, so it is told at once."""
        Request(prompt=prompt, negative_prompt=negative, schedule=schedule, options=options, **settings)
        return prompt

    inputs, count = prompts_given(prompts or [], prompt_file, checked)
    if combinations:
        inputs, count = all_prompts(inputs, wildcards), None
    total = None if count is None else count * images
    save = saver(out, overwrite=overwrite, several=total != 1)

    from pictura.task import TextToImage

    network = TextToImage.from_preset(
        model, dtype=dtype, low_memory=low_memory, config=config, variant=variant, **service
    )
    events = network.stream(
        inputs, num_images=images, negative_prompts=negative, strict=strict, wildcards=wildcards,
        styles=styles, history=None if history else False, **settings, **extra,
    )  # fmt: skip
    rivals = extra.get("best_of", 1)  # pictures made for each one kept
    drawn = None if total is None else total * rivals
    return keep(events, drawn, save, teller(show_pictures, as_json), as_json)


def keep(
    events: Iterable[Event],
    total: int | None,
    save: Callable[[Picture], Path],
    tell: Callable[[Picture, Path], None],
    as_json: bool = False,
) -> int:
    """Save and tell each picture as it comes; the exit status. Raises Cancelled on Ctrl-C.

    `total` is the number of pictures that will be drawn, where it is known.
    """
    from pictura.picture import Failure, Picture, Step

    kept, failed, steps = 0, 0, dict[int, int]()
    with progress("generate", None, sys.stderr) as bar, closing(iter(events)) as stream:  # type: ignore[type-var]
        try:
            for event in stream:
                if isinstance(event, Step):
                    bar.total(total * event.total if total and event.total else None)
                    bar.advance(event.step - steps.get(event.index, 0))
                    steps[event.index] = event.step
                elif isinstance(event, (Picture, Failure)):
                    with uninterrupted(), bar.paused():
                        if isinstance(event, Failure):
                            failed += 1
                            _tell_failure(event, as_json)
                        else:
                            path = save(event)
                            kept += 1
                            tell(event, path)
        except KeyboardInterrupt:
            pictures = "picture" if kept == 1 else "pictures"
            raise Cancelled(f"interrupted; {kept} finished {pictures} kept") from None
    return 1 if failed else 0


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let a Ctrl-C wait until the block has ended: what is stored is stored whole, and told."""
    asked = False

    def later(*_: object) -> None:
        nonlocal asked
        asked = True

    if threading.current_thread() is not threading.main_thread():  # only there a signal is ever heard
        yield
        return
    before = signal.signal(signal.SIGINT, later)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt


def described(picture: Picture, path: Path) -> dict[str, Any]:
    """All that is known of a picture, as JSON values."""
    return {
        "file": str(path),
        "request": picture.request.to_dict(),
        "model_digest": picture.model_digest,
        "version": picture.version,
        "size": list(picture.image.size),
        "timings": dict(picture.timings),
        "ignored": list(picture.ignored),
        "notes": list(picture.notes),
    }


def teller(wanted: bool | None, as_json: bool) -> Callable[[Picture, Path], None]:
    """What shows a picture and prints where it is: as JSON, or as a bare path."""
    how = protocol(sys.stderr, wanted=wanted)

    def tell(picture: Picture, path: Path) -> None:
        show(picture.image, how)
        for name in picture.ignored:
            say(f"ignored: {name}")
        for note in picture.notes:
            say(f"note: {note}")
        print(json.dumps(described(picture, path)) if as_json else path, flush=True)

    return tell


def _tell_failure(failure: Failure, as_json: bool) -> None:
    say(f"failed: {failure.error}")
    if as_json:
        print(json.dumps({"request": failure.request.to_dict(), "error": str(failure.error)}), flush=True)


def _loras(files: Sequence[str]) -> dict[str, Any]:
    """FILE:WEIGHT as the option "lora"; the weight is 1 if there is none."""
    found = []
    for text in files:
        file, colon, weight = text.rpartition(":")
        value = number(weight) if colon else 1.0
        if isinstance(value, str):
            raise ParameterError(f"lora is {shown(text)}; give FILE or FILE:WEIGHT", parameter="lora")
        found.append({"path": file if colon else text, "weight": value})
    return {"lora": found} if found else {}
