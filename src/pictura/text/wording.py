"""From the prompt that was written to the one that is drawn: styles put around it, choices made by its seed.

Both are done once, before a request is complete, so that a picture records the prompt it shows. What was
written is kept beside it as the option "template" (and "negative_template"); where that is there, nothing is
done again, so a replay needs neither style files nor wildcards.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

from pictura.errors import ParameterError, shown
from pictura.request import Request, random_seed
from pictura.text import styles
from pictura.text.dynamic import all_of, is_dynamic, one_of
from pictura.text.prompts import SYNTAXES
from pictura.text.wildcards import Wildcards

__all__ = ["OPTIONS", "combinations", "worded"]

# Options that every model understands, since they are about the text alone.
OPTIONS = frozenset({"prompt_syntax", "style", "template", "negative_template", "template_seed"})
Path = str | os.PathLike[str]
_BRACES = re.compile(r"[{}|]")


def worded(
    request: Request,
    *,
    wildcards: Path | None = None,
    styles_file: Path | None = None,
    own: Collection[str] = (),
) -> Request:
    """`request`, which has its seed, with the prompts that are drawn: by its option "template_seed" if there,
    which a request without a seed is given. Options that the model itself has are its `own`: some services
    have a "style". ParameterError for a style, wildcard or syntax that is not there, and for choices that
    have no end."""
    options = dict(request.options)
    plain = _syntax(options.get("prompt_syntax")) == "plain"
    for name in ("template", "negative_template"):
        if not isinstance(options.get(name), str | None):
            raise ParameterError(f"{name} is {shown(options[name])}; give a text", parameter=name)
    if "template" in options or "negative_template" in options:
        return request
    prompt, negative = request.prompt, request.negative_prompt
    if names := _names(None if "style" in own else options.get("style")):
        prompt, negative = styles.applied(names, styles.load(styles_file), prompt, negative)
    if not plain and (is_dynamic(prompt) or is_dynamic(negative or "")):
        seed, lines = _seed(options.get("template_seed", request.seed)), Wildcards(wildcards)
        if seed is None:
            seed = options["template_seed"] = random_seed()
        prompt = one_of(prompt, seed, lines)
        negative = negative and one_of(negative, seed, lines)
    if prompt != request.prompt:
        options["template"] = request.prompt
    if negative != request.negative_prompt:
        options |= {"template": request.prompt, "negative_template": request.negative_prompt or ""}
    return replace(request, prompt=prompt, negative_prompt=negative, options=options)


def combinations(prompt: str, *, wildcards: Path | None = None) -> Iterator[str]:
    """Every prompt that a dynamic one can become, one by one: `model.generate(combinations("a {cat|dog}"))`.

    They are texts without choices. ParameterError where a wildcard is not there or there is no end.
    """
    for text in all_of(prompt, Wildcards(wildcards)):
        yield _BRACES.sub(r"\\\g<0>", text) if "{" in text or "}" in text else text


def _syntax(given: Any) -> str:
    if given is None:
        return SYNTAXES[0]
    if given not in SYNTAXES:
        raise ParameterError(
            f"prompt_syntax is {shown(given)}; choose one of {', '.join(SYNTAXES)}", parameter="prompt_syntax"
        )
    return str(given)


def _seed(given: Any) -> int | None:
    if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 0):
        raise ParameterError(
            f"template_seed is {shown(given)}; give a whole number from 0", parameter="template_seed"
        )
    return given


def _names(given: Any) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else given
    if names is None:
        return ()
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise ParameterError(f"style is {shown(given)}; give a name or a list of names", parameter="style")
    return names
