"""The text that AUTOMATIC1111's web interface puts into pictures, and that most galleries read.

    a cat, masterpiece
    Negative prompt: dog
    Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x512, Model: abc

The prompt and the negative prompt may have several lines; the settings are the last line, where a value
with commas, colons or line ends is a JSON string. The format cannot tell a prompt that has such lines from
its own, which is why Pictura reads its own chunk first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from pictura.errors import ParameterError
from pictura.request import Request

__all__ = ["SAMPLERS", "SCHEDULES", "own_names", "parse", "to_request", "write"]

NEGATIVE = "Negative prompt:"
SAMPLERS = {
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "ddim": "DDIM",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_sde": "DPM++ SDE",
    "unipc": "UniPC",
    "lcm": "LCM",
    "pndm": "PLMS",
}
SCHEDULES = {"karras": "Karras", "exponential": "Exponential", "sgm_uniform": "SGM Uniform"}


def write(request: Request, *, model_digest: str | None, version: str) -> str:
    """The text for a completed request."""
    size = None if request.size is None else f"{request.size[0]}x{request.size[1]}"
    settings: dict[str, Any] = {
        "Steps": request.num_steps,
        "Sampler": SAMPLERS.get(request.sampler or "", request.sampler),
        "Schedule type": SCHEDULES.get(request.schedule or "", request.schedule),
        "CFG scale": None if request.guidance_scale is None else f"{request.guidance_scale:.10g}",
        "Seed": request.seed,
        "Size": size,
        "Model hash": None if model_digest is None else model_digest[:10],
        "Model": request.model,
        "Version": f"pictura {version}",
    }
    for name, value in sorted(request.to_dict().get("options", {}).items()):
        if _KEY.fullmatch(name):
            settings.setdefault(name, value if isinstance(value, str) else json.dumps(value))
    pairs = [f"{name}: {_quoted(str(value))}" for name, value in settings.items() if value is not None]
    negative = [f"{NEGATIVE} {request.negative_prompt}"] if request.negative_prompt else []
    return "\n".join([request.prompt, *negative, ", ".join(pairs)])


def parse(text: str) -> tuple[str, str | None, dict[str, str]]:
    """(prompt, negative prompt, settings) of a text by any tool; settings as they are spelt."""
    lines = text.strip().split("\n")
    settings = _settings(lines[-1])
    if settings is not None:
        lines.pop()
    at = next((n for n, line in enumerate(lines) if line.startswith(NEGATIVE)), len(lines))
    negative = "\n".join(lines[at:])[len(NEGATIVE) :].strip()
    return "\n".join(lines[:at]).strip(), negative or None, settings or {}


def to_request(text: str) -> tuple[Request, tuple[str, ...]]:
    """(request, notes): what a text by any tool says, as far as it fits a request.

    A setting that does not fit is left out and noted. ParameterError where the prompt itself cannot be used.
    """
    prompt, negative, settings = parse(text)
    request, notes = Request(prompt=prompt, negative_prompt=negative), []
    sampler, schedule = own_names(settings.get("Sampler"), settings.get("Schedule type"))
    found: dict[str, Any] = {"sampler": sampler, "schedule": schedule, "model": settings.get("Model")}
    for name, key, read in _NUMBERS:
        if key in settings:
            try:
                found[name] = read(settings[key])
            except ValueError:
                found[name] = settings[key]  # refused below, with a note
    for name, value in found.items():
        if value is None or (name == "seed" and value == -1):
            continue
        try:
            request = Request(**{**request.to_dict(), name: value})
        except ParameterError as error:
            notes.append(f"left out: {error}")
    return request, tuple(notes)


_KEY = re.compile(r"[A-Za-z][^:,\"\n]{0,99}")
_NUMBERS: tuple[tuple[str, str, Callable[[str], object]], ...] = (
    ("num_steps", "Steps", int),
    ("guidance_scale", "CFG scale", float),
    ("seed", "Seed", int),
    ("size", "Size", str),
)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:\n"\r]|^[\[{]|^\s|\s$', value) else value


def _settings(line: str) -> dict[str, str] | None:
    """The pairs of a settings line; None where it is none, which fewer than three pairs are taken to mean."""
    pairs, at = {}, 0
    while at < len(line):
        key = _KEY.match(line, at)
        if key is None or line[key.end() : key.end() + 1] != ":":
            return None
        value, at = _value(line, key.end() + 1)
        pairs[key.group().strip()] = value
    return pairs if len(pairs) >= 3 else None


def _value(line: str, at: int) -> tuple[str, int]:
    """The value that starts at `at`, and where the next pair starts."""
    at += len(line[at:]) - len(line[at:].lstrip(" "))
    if line[at : at + 1] in ('"', "[", "{"):
        try:
            value, end = json.JSONDecoder().raw_decode(line, at)
            if not line[end:].strip() or line[end:].lstrip(" ").startswith(","):
                end += len(line[end:]) - len(line[end:].lstrip(" ,"))
                return value if isinstance(value, str) else json.dumps(value), end
        except (ValueError, RecursionError):
            pass
    end = line.find(",", at)
    if end < 0:
        return line[at:].strip(), len(line)
    rest = line[end:].lstrip(" ,")
    return line[at:end].strip(), len(line) - len(rest)


def own_names(sampler: str | None, schedule: str | None = None) -> tuple[str | None, str | None]:
    """Our names of sampler and schedule; older texts have both in one ("DPM++ 2M Karras")."""
    if sampler is None:
        return None, None
    for name in SCHEDULES.values():
        if schedule is None and sampler.lower().endswith(f" {name.lower()}"):
            sampler, schedule = sampler[: -len(name) - 1], name
    if schedule is not None and schedule.lower() == "automatic":  # the tool's word for its own choice
        schedule = None
    return _ours(sampler, SAMPLERS), None if schedule is None else _ours(schedule, SCHEDULES)


def _ours(theirs: str, names: Mapping[str, str]) -> str:
    known = {value.lower(): key for key, value in names.items()}
    return known.get(theirs.lower(), re.sub(r"\W+", "_", theirs.lower()).strip("_"))
