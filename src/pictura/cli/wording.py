"""What the command line says about texts: styles, wildcards, syntax, all combinations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer


def style_names(incomplete: str) -> list[str]:
    from pictura.text import styles

    return [name for name in styles.load() if name.startswith(incomplete)]


Style = Annotated[
    list[str] | None,
    typer.Option(help="Put a style around the prompts, such as watercolor.", autocompletion=style_names),
]
Styles = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Styles of your own: JSON, or a styles.csv.")
]
Wildcards = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where the lines are that __name__ stands for.")
]
Syntax = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="a1111: (word:1.2), {a|b} and so on; plain: nothing is special."),
]
Combinations = Annotated[
    bool, typer.Option("--combinations", help="Draw every prompt that {a|b} and __name__ can give.")
]


Embeddings = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Textual inversion: a word of its own from a .safetensors file."),
]


def text_options(
    style: Sequence[str] | None, syntax: str | None, embeddings: Sequence[Path] | None
) -> dict[str, Any]:
    """The options of a request that these are."""
    files = [{"path": str(path)} for path in embeddings or ()]
    named = {"style": list(style or ()) or None, "prompt_syntax": syntax, "embeddings": files or None}
    return {name: value for name, value in named.items() if value is not None}


def all_prompts(prompts: Iterable[str], wildcards: Path | None) -> Iterator[str]:
    """Every combination of every prompt, one by one."""
    from pictura.text.wording import combinations

    for prompt in prompts:
        yield from combinations(prompt, wildcards=wildcards)
