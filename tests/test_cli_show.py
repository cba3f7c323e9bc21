"""Pictures on a terminal: each protocol is decoded again and compared, half-blocks by a terminal emulator."""

from __future__ import annotations

import io
import os
import re
import sys
from base64 import b64decode

import numpy as np
import pytest
from PIL import Image

from pictura.cli.show import CHUNK, picture_text, progress, protocol, show
from pictura.datasets.scenes.stream import example
from pictura.errors import ParameterError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def image() -> Image.Image:
    return Image.fromarray(example(3).image())


@pytest.fixture
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 80, 3)).astype(np.uint8))


def test_kitty_sends_the_png_in_chunks(noise: Image.Image) -> None:
    text = picture_text(noise, "kitty")
    escapes = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)
    assert len(escapes) > 2
    assert escapes[0][0] == "a=T,f=100,q=2,m=1"
    assert [keys for keys, _ in escapes[1:]] == ["m=1"] * (len(escapes) - 2) + ["m=0"]
    assert max(len(data) for _, data in escapes) == CHUNK
    sent = Image.open(io.BytesIO(b64decode("".join(data for _, data in escapes))))
    np.testing.assert_array_equal(np.asarray(sent), np.asarray(noise))
    assert re.sub(r"\x1b_G[^\x1b]*\x1b\\", "", text) == "\n"


def test_kitty_sends_a_small_picture_in_one_escape() -> None:
    assert picture_text(Image.new("RGB", (4, 4)), "kitty").startswith("\x1b_Ga=T,f=100,q=2,m=0;")


def test_iterm2_sends_the_png(image: Image.Image) -> None:
    text = picture_text(image, "iterm2")
    match = re.fullmatch(
        r"\x1b\]1337;File=inline=1;size=(\d+);width=128px;height=128px:([^\x07]*)\x07\n", text
    )
    assert match
    data = b64decode(match[2])
    assert len(data) == int(match[1])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(image))


def decoded_sixel(text: str) -> np.ndarray:
    """(h, w, 3) percentages, by the letter of DEC's definition."""
    head, body = re.fullmatch(r'\x1bPq"1;1;(\d+;\d+)(.*)\x1b\\\n', text, re.S).groups()  # type: ignore[union-attr]
    width, height = map(int, head.split(";"))
    pixels = np.full((height + 6, width, 3), -1)
    palette: dict[int, list[int]] = {}
    x = y = colour = 0
    for number, define, repeat, sixel, control in re.findall(
        r"#(\d+)(;2;\d+;\d+;\d+)?|(?:!(\d+))?([?-~])|([$-])", body
    ):
        if number:
            colour = int(number)
            if define:
                palette[colour] = [int(v) for v in define.split(";")[2:]]
        elif sixel:
            for _ in range(int(repeat or 1)):
                for bit in range(6):
                    if (ord(sixel) - 63) >> bit & 1:
                        pixels[y + bit, x] = palette[colour]
                x += 1
        else:
            x, y = 0, y + 6 * (control == "-")
    assert (pixels[height:] == -1).all()
    return pixels[:height]


@pytest.mark.parametrize("size", [(128, 128), (7, 5), (1, 1), (30, 13)])
def test_sixel_draws_every_pixel(image: Image.Image, size: tuple[int, int]) -> None:
    image = image.resize(size)
    drawn = decoded_sixel(picture_text(image, "sixel"))
    expected = np.asarray(image.quantize(256).convert("RGB")).astype(float) * 100 / 255
    assert drawn.shape == expected.shape
    assert np.abs(drawn - expected).max() <= 0.5


def on_screen(text: str, columns: int, rows: int) -> np.ndarray:
    """(2 * rows used, columns used, 3): what a terminal emulator shows."""
    pyte = pytest.importorskip("pyte")
    screen = pyte.Screen(columns, rows)
    pyte.Stream(screen).feed(text.replace("\n", "\r\n"))
    used = [
        [screen.buffer[y][x] for x in range(columns) if screen.buffer[y][x].data == "▀"] for y in range(rows)
    ]
    halves = [[[cell.fg for cell in row], [cell.bg for cell in row]] for row in used if row]
    flat = [half for row in halves for half in row]
    return np.asarray([[[int(c[i : i + 2], 16) for i in (0, 2, 4)] for c in half] for half in flat])


def test_half_blocks_show_every_pixel_of_a_picture_that_fits(noise: Image.Image) -> None:
    small = noise.crop((0, 0, 40, 30))
    np.testing.assert_array_equal(on_screen(picture_text(small, "blocks", 80, 24), 80, 24), np.asarray(small))


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (20, 50), (200, 100)])
def test_half_blocks_fit_the_terminal_and_keep_the_shape(image: Image.Image, columns: int, rows: int) -> None:
    shown = on_screen(picture_text(image, "blocks", columns, rows), columns, rows)
    height, width, _ = shown.shape
    assert width <= columns and height // 2 <= rows - 2
    assert abs(width - height) <= 1
    whole = np.asarray(image).reshape(-1, 3).mean(0)
    assert np.abs(shown.reshape(-1, 3).mean(0) - whole).max() < 3


def test_half_blocks_without_true_colour_use_the_nearest_of_the_colour_cube() -> None:
    levels = np.asarray([0, 95, 135, 175, 215, 255])
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)
    text = picture_text(Image.fromarray(pixels), "blocks", 80, 24, true_colour=False)
    nearest = levels[np.abs(pixels[..., None].astype(int) - levels).argmin(-1)]
    shown = on_screen(text, 80, 24)
    assert np.abs(shown - pixels).max() == np.abs(nearest - pixels.astype(int)).max()
    # Ties may fall either way.
    assert (np.abs(shown - pixels) == np.abs(nearest - pixels.astype(int))).mean() > 0.98


def test_none_draws_nothing(image: Image.Image) -> None:
    assert picture_text(image, "none") == ""


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "tmux-256color", "TMUX": "x", "LC_TERMINAL": "iTerm2"}, "blocks"),
        ({"TERM": "xterm-256color"}, "blocks"),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, "none"),
        ({"TERM": "dumb"}, "none"),
        ({}, "none"),
        ({"PICTURA_SHOW": "sixel"}, "sixel"),
    ],
)
def test_the_protocol_follows_the_terminal(environ: dict[str, str], expected: str) -> None:
    assert protocol(Terminal(), environ) == expected


def test_nothing_is_shown_in_a_pipe_unless_wanted() -> None:
    pipe, environ = io.StringIO(), {"TERM": "xterm-kitty"}
    assert protocol(pipe, environ) == "none"
    assert protocol(pipe, environ, wanted=True) == "blocks"
    assert protocol(Terminal(), environ, wanted=False) == "none"


def test_an_unknown_protocol_is_refused_with_the_nearest() -> None:
    with pytest.raises(ParameterError, match="did you mean 'kitty'"):
        protocol(Terminal(), {"PICTURA_SHOW": "kity"})


@pytest.mark.parametrize(("answer", "expected"), [(b"\x1b[?62;4;22c", "sixel"), (b"\x1b[?62;22c", "blocks")])
def test_the_terminal_is_asked_for_sixel(answer: bytes, expected: str) -> None:
    """On a real pseudo-terminal: the question goes out, the answer comes back, the mode is restored."""
    pty = pytest.importorskip("pty")
    code = "import sys; from pictura.cli.show import protocol; print('is', protocol(sys.stderr))"
    pid, master = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", PYTHONPATH=os.pathsep.join(sys.path))
        for name in ("TMUX", "TERM_PROGRAM", "LC_TERMINAL", "KITTY_WINDOW_ID", "NO_COLOR", "PICTURA_SHOW"):
            os.environ.pop(name, None)
        os.execv(sys.executable, [sys.executable, "-c", code])
    seen = b""
    while b"\x1b[c" not in seen:
        seen += os.read(master, 100)
    os.write(master, answer)
    while b"is " + expected.encode() not in seen:
        seen += os.read(master, 100)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(master)


def test_show_writes_to_the_stream(monkeypatch: pytest.MonkeyPatch, image: Image.Image) -> None:
    monkeypatch.delenv("COLORTERM", raising=False)
    stream = io.StringIO()
    show(image, "blocks", stream)
    assert "\x1b[38;5;" in stream.getvalue()


def test_progress_is_silent_in_a_pipe() -> None:
    pipe = io.StringIO()
    with progress("work", 3, pipe) as bar:
        bar.total(4)
        bar.advance()
        with bar.paused():
            pass
    assert pipe.getvalue() == ""


def test_progress_is_a_bar_on_a_terminal() -> None:
    terminal = Terminal()
    with progress("work", None, terminal) as bar:
        bar.total(4)
        bar.advance(3)
        with bar.paused():
            terminal.write("[between]")
    text = terminal.getvalue()
    assert "work" in text and "3/4" in text and "[between]" in text
