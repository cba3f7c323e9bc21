"""Pictures and progress on a terminal.

A picture is written with the best protocol that the terminal speaks: kitty's graphics protocol, iTerm2's
inline images, sixel, and otherwise half-blocks, where one character cell is two pixels (its upper half in the
text colour, its lower half in the background colour). `PICTURA_SHOW` (kitty, iterm2, sixel, blocks, none)
overrides the choice. Progress is a bar on a terminal and nothing in a pipe.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from pictura.errors import ParameterError, did_you_mean, shown

if TYPE_CHECKING:
    from PIL.Image import Image

PROTOCOLS = ("kitty", "iterm2", "sixel", "blocks", "none")
CHUNK = 4096  # most base64 characters in one escape of kitty's protocol
MAX_COLUMNS = 64  # half-blocks: a 128 px picture at half its size


def say(text: str) -> None:
    """Write one line for a person to standard error, where it cannot mix with results."""
    print(text, file=sys.stderr, flush=True)


def protocol(stream: TextIO, environ: Mapping[str, str] | None = None, wanted: bool | None = None) -> str:
    """The way to show a picture on `stream`, one of `PROTOCOLS`.

    "none" if not `wanted`, or if nobody said and `stream` is no terminal in colour. Raises ParameterError if
    `PICTURA_SHOW` holds anything else.
    """
    environ = os.environ if environ is None else environ
    if wanted is False:
        return "none"
    chosen = environ.get("PICTURA_SHOW")
    if chosen is not None:
        if chosen not in PROTOCOLS:
            message = f"PICTURA_SHOW is {shown(chosen)}; {did_you_mean(chosen, PROTOCOLS)}"
            raise ParameterError(message, parameter="PICTURA_SHOW")
        return chosen
    term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM", "")
    if not stream.isatty() or term in ("", "dumb") or "NO_COLOR" in environ:
        return "blocks" if wanted else "none"
    # tmux and screen swallow the escapes that they do not know.
    multiplexed = "TMUX" in environ or term.startswith(("screen", "tmux"))
    if not multiplexed:
        if "KITTY_WINDOW_ID" in environ or "kitty" in term or "ghostty" in term + program:
            return "kitty"
        if program in ("iTerm.app", "WezTerm") or environ.get("LC_TERMINAL") == "iTerm2":
            return "iterm2"
    return "sixel" if _answers_sixel(stream) else "blocks"


def picture_text(image: Image, how: str, columns: int = 80, rows: int = 24, true_colour: bool = True) -> str:
    """The characters that draw `image` by protocol `how` on a terminal of this size, with a final newline."""
    if how == "none":
        return ""
    image = image.convert("RGB")
    if how == "blocks":
        return _blocks(image, min(columns, MAX_COLUMNS), max(rows - 2, 4), true_colour)
    return {"kitty": _kitty, "iterm2": _iterm2, "sixel": _sixel}[how](image) + "\n"


def show(image: Image, how: str, stream: TextIO | None = None) -> None:
    """Draw `image` on the terminal behind `stream` (standard error if none) by protocol `how`."""
    from shutil import get_terminal_size

    stream = sys.stderr if stream is None else stream
    columns, rows = get_terminal_size()
    true_colour = os.environ.get("COLORTERM", "") in ("truecolor", "24bit") or how != "blocks"
    stream.write(picture_text(image, how, columns, rows, true_colour))
    stream.flush()


class Bar(Protocol):
    """What `progress` gives: a bar, or its silent twin in a pipe."""

    def advance(self, amount: int = 1) -> None:
        """Count `amount` more as done."""

    def total(self, amount: int | None) -> None:
        """Say how much there is to do in all; None when nobody knows."""

    def paused(self) -> Any:
        """A context in which the bar is off the screen, so that other text can be written."""


@contextmanager
def progress(
    what: str, total: int | None = None, stream: TextIO | None = None, *, rate: bool = False
) -> Iterator[Bar]:
    """A progress bar named `what` on a terminal; in a pipe nothing is ever written. rate: units a second."""
    stream = sys.stderr if stream is None else stream
    if not stream.isatty():
        yield _Silent()
        return
    from rich import progress as rich
    from rich.console import Console

    class Rate(rich.ProgressColumn):
        def render(self, task: rich.Task) -> str:
            return "" if task.speed is None else f"{task.speed:.3g}/s"

    columns = [rich.TextColumn("{task.description}"), rich.BarColumn(), rich.MofNCompleteColumn()]
    columns += [rich.TimeRemainingColumn(), *[Rate()] * rate]
    with rich.Progress(*columns, console=Console(file=stream), transient=True) as bars:
        yield _Shown(bars, bars.add_task(what, total=total))


def _answers_sixel(stream: TextIO) -> bool:
    """Ask the terminal for its attributes (DA1); attribute 4 means sixel. A silent terminal costs 0.2 s."""
    try:
        import select
        import termios
        import tty

        keyboard = sys.stdin.fileno()
        if not os.isatty(keyboard) or os.tcgetpgrp(keyboard) != os.getpgrp():
            return False
        before = termios.tcgetattr(keyboard)
    except (ImportError, OSError, ValueError, termios.error):
        return False
    reply = b""
    try:
        tty.setcbreak(keyboard)
        stream.write("\x1b[c")
        stream.flush()
        while not reply.endswith(b"c") and select.select([keyboard], [], [], 0.2)[0]:
            reply += os.read(keyboard, 64)
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
    return b"4" in reply.rpartition(b"\x1b[?")[2].rstrip(b"c").split(b";")[1:]


def _base64_png(image: Image) -> tuple[str, int]:
    from base64 import b64encode
    from io import BytesIO

    file = BytesIO()
    image.save(file, "PNG")
    return b64encode(file.getvalue()).decode(), file.tell()


def _kitty(image: Image) -> str:
    """Kitty's graphics protocol: the PNG in base64, in escapes of at most 4096 characters."""
    data, _ = _base64_png(image)
    chunks = [data[i : i + CHUNK] for i in range(0, len(data), CHUNK)]
    keys = ["a=T,f=100,q=2,"] + [""] * (len(chunks) - 1)
    more = [1] * (len(chunks) - 1) + [0]
    return "".join(f"\x1b_G{k}m={m};{c}\x1b\\" for k, m, c in zip(keys, more, chunks, strict=True))


def _iterm2(image: Image) -> str:
    """ITerm2's inline image: the PNG in base64 at its own size in pixels."""
    data, size = _base64_png(image)
    width, height = image.size
    return f"\x1b]1337;File=inline=1;size={size};width={width}px;height={height}px:{data}\x07"


def _sixel(image: Image) -> str:
    """DEC sixels: a palette of up to 256 colours, then bands of six rows, a line for each colour."""
    from itertools import groupby

    import numpy as np

    flat = image.quantize(256)
    palette = np.asarray(flat.getpalette()).reshape(-1, 3)
    pixels = np.asarray(flat)
    height, width = pixels.shape
    used = np.unique(pixels)
    out = [f'\x1bPq"1;1;{width};{height}']
    # Sixel colours are percentages.
    out += [f"#{c};2;" + ";".join(str(round(int(v) * 100 / 255)) for v in palette[c]) for c in used]
    for top in range(0, height, 6):
        band = pixels[top : top + 6]
        weights = 1 << np.arange(len(band))[:, None]
        lines = []
        for colour in np.unique(band):
            bits = ((band == colour) * weights).sum(axis=0) + 63
            runs = ((chr(code), len(list(run))) for code, run in groupby(bits.tolist()))
            lines.append(f"#{colour}" + "".join(f"!{n}{c}" if n > 3 else c * n for c, n in runs))
        out.append("$".join(lines) + "-")
    return "".join(out) + "\x1b\\"


def _blocks(image: Image, columns: int, rows: int, true_colour: bool) -> str:
    """Half-blocks: a line of text for two lines of pixels, never larger than the picture itself."""
    import numpy as np
    from PIL.Image import Resampling

    width, height = image.size
    scale = min(1.0, columns / width, 2 * rows / height)
    size = max(1, round(width * scale)), max(2, round(height * scale / 2) * 2)
    pixels = np.asarray(image.resize(size, Resampling.BOX)).astype(int)
    colour = _true_colour if true_colour else _xterm_colour
    lines = []
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        cells = [f"\x1b[38;{colour(u)};48;{colour(v)}m▀" for u, v in zip(upper, lower, strict=True)]
        lines.append("".join(cells) + "\x1b[0m\n")
    return "".join(lines)


def _true_colour(rgb: Any) -> str:
    return f"2;{rgb[0]};{rgb[1]};{rgb[2]}"


def _xterm_colour(rgb: Any) -> str:
    """The nearest of xterm's 6x6x6 colour cube, whose levels are 0, 95, 135, 175, 215 and 255."""
    red, green, blue = (0 if v < 48 else 1 if v < 115 else (int(v) - 35) // 40 for v in rgb)
    return f"5;{16 + 36 * red + 6 * green + blue}"


class _Silent:
    def advance(self, amount: int = 1) -> None:
        pass

    def total(self, amount: int | None) -> None:
        pass

    @contextmanager
    def paused(self) -> Iterator[None]:
        yield


class _Shown:
    def __init__(self, bars: Any, task: Any) -> None:
        self._bars, self._task = bars, task

    def advance(self, amount: int = 1) -> None:
        self._bars.advance(self._task, amount)

    def total(self, amount: int | None) -> None:
        self._bars.update(self._task, total=amount)

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._bars.stop()
        try:
            yield
        finally:
            self._bars.start()
