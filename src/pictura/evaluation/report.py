"""What an evaluation found, as values and as `report.json`, `report.md` and `report.html` with pictures."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pictura.datasets.scenes.grammar import things
from pictura.errors import FileError
from pictura.picture import Picture

from .checkers import Sight
from .composition import Verdict

__all__ = ["Judged", "Report", "Share", "reserve", "write"]

SHOWN = 24  # failures shown as pictures, and right ones
_PLAIN = (
    "model",
    "digest",
    "suite",
    "count",
    "seed",
    "settings",
    "request",
    "seconds",
    "total_seconds",
    "when",
    "version",
    "machine",
)


@dataclass(frozen=True, slots=True)
class Judged:
    """One picture of an evaluation. `seconds` is its share of the time its batch took."""

    category: str
    prompt: str
    picture: Picture
    image: NDArray[np.uint8]
    verdicts: Mapping[str, Verdict]
    seconds: float

    def right(self) -> bool:
        """All checkers agree that everything asked is there, and nothing else."""
        return all(v.exact for v in self.verdicts.values())


@dataclass(frozen=True, slots=True)
class Share:
    """`right` of `total` pictures by one checker; `low` and `high` are the 95 % Wilson interval."""

    category: str
    checker: str
    right: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """`right` / `total`."""
        return self.right / self.total


@dataclass(frozen=True, kw_only=True)
class Report:
    """`request` holds what the model completed the settings to; `metrics` value, meaning and whether higher
    is better, by name; `seconds` the mean time a picture, drawn in batches."""

    model: str
    digest: str | None
    suite: str
    count: int
    seed: int
    settings: Mapping[str, Any]
    request: Mapping[str, Any]
    shares: tuple[Share, ...]
    metrics: Mapping[str, tuple[float, str, bool]]
    seconds: float
    total_seconds: float
    when: str
    version: str
    machine: str
    judged: tuple[Judged, ...]

    def share(self, category: str, checker: str = "template") -> Share:
        """The share of one category by one checker; StopIteration where there is none."""
        return next(s for s in self.shares if (s.category, s.checker) == (category, checker))

    def failures(self) -> list[Judged]:
        """Pictures that at least one checker finds wrong, in order."""
        return [j for j in self.judged if not j.right()]

    def to_dict(self) -> dict[str, Any]:
        """JSON values: everything but the pixels."""
        return {
            **{n: getattr(self, n) for n in _PLAIN},
            "accuracy": [
                {
                    "category": s.category,
                    "checker": s.checker,
                    "right": s.right,
                    "total": s.total,
                    "share": s.value,
                    "low": s.low,
                    "high": s.high,
                }
                for s in self.shares
            ],
            "metrics": {
                n: {"value": v, "help": h, "higher_is_better": up} for n, (v, h, up) in self.metrics.items()
            },
            "pictures": [_told(j) for j in self.judged],
        }

    def __str__(self) -> str:
        return markdown_tables(self)


def seen(sight: Sight) -> str:
    """A sight in words: "cat (32, 64), ? (96, 64) on blue"."""
    names = [f"{'?' if s.thing is None else things()[s.thing].singular} ({s.x}, {s.y})" for s in sight.things]
    return f"{', '.join(names) or 'nothing'} on {sight.background or 'another colour'}"


def _told(one: Judged) -> dict[str, Any]:
    return {
        "category": one.category,
        "prompt": one.prompt,
        "seed": one.picture.request.seed,
        "verdicts": {
            name: {
                "identity": v.identity,
                "exact": v.exact,
                "relation": v.relation,
                "count": v.count,
                "background": v.background,
                "seen": seen(v.sight),
            }
            for name, v in one.verdicts.items()
        },
    }


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    yield "Model", f"{report.model}, digest {report.digest or 'unknown'}"
    yield "Suite", f"{report.suite}, {report.count} prompts a category, seeds from {report.seed}"
    given = json.dumps(dict(report.settings), default=str) if report.settings else "the model's defaults"
    yield "Settings", f"{given}; completed to {json.dumps(dict(report.request), default=str)}"
    yield "Time", f"{report.seconds:.2f} s a picture in batches; {report.total_seconds:.0f} s in all"
    yield "Made", f"{report.when}, Pictura {report.version}, {report.machine}"
    if int(report.settings.get("best_of") or 1) > 1:
        yield "Note", "the detector chose among the rivals, so only template matching grades independently"


def _rows(report: Report) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of shares, a column a checker."""
    graders = list(dict.fromkeys(s.checker for s in report.shares))
    graders.sort(key=lambda name: name != "template")  # the one that chooses nothing comes first
    rows = []
    for category in dict.fromkeys(s.category for s in report.shares):
        row = [category]
        for checker in graders:
            s = report.share(category, checker)
            row.append(f"{s.value:.1%} ({s.right}/{s.total}; {s.low:.1%} to {s.high:.1%})")
        rows.append(row)
    return ["category", *graders], rows


def markdown_tables(report: Report) -> str:
    head, rows = _rows(report)
    lines = [f"| {' | '.join(r)} |" for r in (head, ["---"] * len(head), *rows)]
    if report.metrics:
        lines += ["", "| metric | value | better | meaning |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {n} | {v:.4g} | {'higher' if up else 'lower'} | {h} |"
            for n, (v, h, up) in report.metrics.items()
        ]
    return "\n".join(lines)


def _markdown(report: Report) -> str:
    lines = [f"# {report.model} on {report.suite}", ""]
    lines += [f"- **{name}**: {text}" for name, text in _facts(report)]
    lines += ["", _EXPLAINED, "", markdown_tables(report), ""]
    for title, chosen in _galleries(report):
        lines += [f"## {title}", ""]
        for at, one in chosen:
            lines += [
                f"![{one.prompt}](pictures/{at:05}.png)",
                "",
                f"{one.prompt} (seed {one.picture.request.seed}): {_said(one)}",
                "",
            ]
    return "\n".join(lines)


_EXPLAINED = (
    "A picture counts when everything asked is there, in the right number and order, on the right "
    "background, and nothing else; the row `background` counts the colour alone, where it was "
    "asked for. In brackets: right of total and the 95 % confidence interval (Wilson)."
)


def _galleries(report: Report) -> Iterator[tuple[str, list[tuple[int, Judged]]]]:
    numbered = list(enumerate(report.judged))
    wrong = [(i, j) for i, j in numbered if not j.right()]
    right = [(i, j) for i, j in numbered if j.right()]
    for title, chosen in (("Failures", wrong), ("Right", right)):
        spread = chosen[:: max(1, -(-len(chosen) // SHOWN))]
        if chosen:
            yield f"{title}: {len(spread)} of {len(chosen)}", spread


def _said(one: Judged) -> str:
    return "; ".join(f"{name} sees {seen(v.sight)}" for name, v in one.verdicts.items())


def _html(report: Report) -> str:
    head, rows = _rows(report)
    e = html.escape
    table = "".join(
        "<tr>" + "".join(f"<{tag}>{e(cell)}</{tag}>" for cell in row) + "</tr>"
        for tag, row in [("th", head), *(("td", row) for row in rows)]
    )
    extra = "".join(
        f"<tr><td>{e(n)}</td><td>{v:.4g}</td><td>{'higher' if up else 'lower'} is better</td>"
        f"<td>{e(h)}</td></tr>"
        for n, (v, h, up) in report.metrics.items()
    )
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        f"<title>{e(report.model)} on {e(report.suite)}</title>",
        "<style>:root{color-scheme:light dark}body{font:15px/1.5 system-ui;max-width:70rem;margin:2rem auto;"
        "padding:0 1rem}td,th{text-align:left;padding:.2rem .8rem;border-bottom:1px solid #8886}"
        ".all{display:grid;grid-template-columns:repeat(auto-fill,minmax(9rem,1fr));gap:1rem}"
        "figure{margin:0}img{width:100%}figcaption{font-size:12px}</style>",
        f"<h1>{e(report.model)} on {e(report.suite)}</h1><ul>",
        *(f"<li><b>{e(name)}</b>: {e(text)}" for name, text in _facts(report)),
        f"</ul><p>{e(_EXPLAINED)}</p><table>{table}</table><table>{extra}</table>",
    ]
    for title, chosen in _galleries(report):
        parts.append(f"<h2>{e(title)}</h2><div class=all>")
        for _, one in chosen:
            data = base64.b64encode(_png(one.image)).decode()
            parts.append(
                f"<figure><img alt='{e(one.prompt)}' src='data:image/png;base64,{data}'><figcaption>"
                f"<b>{e(one.prompt)}</b><br>{e(_said(one))}</figcaption></figure>"
            )
        parts.append("</div>")
    return "\n".join(parts) + "\n"


def _png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def reserve(out: str | os.PathLike[str]) -> None:
    """FileError unless `out` can become a new folder (or is an empty one)."""
    target = Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileError(f"{str(target)!r} exists already and is not an empty folder; choose another")
    if not target.absolute().parent.is_dir():
        raise FileError(f"{str(target)!r} cannot be written: there is no folder {str(target.parent)!r}")


def write(report: Report, out: str | os.PathLike[str]) -> None:
    """The report as a new folder `out`, whole or not at all."""
    reserve(out)
    target = Path(out).absolute()
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        (part / "pictures").mkdir()
        for _, chosen in _galleries(report):
            for at, one in chosen:
                (part / "pictures" / f"{at:05}.png").write_bytes(_png(one.image))
        values = json.dumps(report.to_dict(), indent=1, default=str)
        texts = {"json": values + "\n", "md": _markdown(report), "html": _html(report)}
        for kind, text in texts.items():
            (part / f"report.{kind}").write_text(text, encoding="utf-8")
        part.chmod(0o755)
        os.replace(part, target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
