"""How figures are written on the page of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def shown(values: Mapping[str, float], unit: str = "") -> str:
    """A median with its least and greatest value."""
    return f"{values['median']:g}{unit} ({values['min']:g} to {values['max']:g})"


def verdict(held: bool) -> str:
    return "yes" if held else "**no**"
