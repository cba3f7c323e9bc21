"""Write docs/http.md from the server's own description: python scripts/make_http_docs.py [--check]

With --check nothing is written; the exit status is 1 if the page is not current.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pictura.server.app import create_app
from pictura.server.settings import Settings

PAGE = Path(__file__).parents[1] / "docs" / "http.md"
METHODS = ("get", "post", "put", "patch", "delete")
GROUPS = {
    "/api/jobs": "Jobs",
    "/api": "History, models and what the server says of itself",
    "/images": "Files",
    "/v1": "OpenAI",
    "/openai": "OpenAI, as Azure has it",
    "/sdapi": "AUTOMATIC1111",
    "/controlnet": "AUTOMATIC1111",
    "/models": "Hugging Face",
    "/": "The page, Hugging Face's default address, and the state of the server",
}
HEAD = """# The server's HTTP interface

<!-- Written by scripts/make_http_docs.py from the routes themselves; do not edit. -->

The same as `/openapi.json` of a running server, to read. [server.md](server.md) says how to run one, and
[security.md](security.md) who may ask what. Errors of `/api` are
`{"error": {"message", "type", "parameter"}}`; the other formats have the envelopes that their clients know.
"""


def page() -> str:
    """The whole page as Markdown."""
    document = create_app(Settings()).openapi()
    found: dict[str, list[str]] = {title: [] for title in GROUPS.values()}
    for path, methods in document["paths"].items():
        title = GROUPS[next(prefix for prefix in GROUPS if path.startswith(prefix))]
        for method in METHODS:
            if method in methods:
                found[title] += route(method.upper(), path, methods[method], document)
    parts = [HEAD]
    for title, lines in found.items():
        if lines:
            parts += [f"## {title}\n", *lines]
    return "\n".join(parts)


def route(method: str, path: str, said: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[str]:
    """One route: what it does, its parameters, what is sent and answered."""
    yield f"### `{method} {path}`\n"
    yield (said.get("description") or said.get("summary") or "").strip() + "\n"
    if parameters := [one for one in said.get("parameters", []) if one["in"] != "path"]:
        yield "| parameter | where | |\n|---|---|---|"
        for one in parameters:
            cells = [f"`{one['name']}`", one["in"], told(one)]
            yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
        yield ""
    for kind, content in (said.get("requestBody") or {}).get("content", {}).items():
        if (sent := example(content, document)) is not None:
            text = json.dumps(sent, indent=1, ensure_ascii=False)
            yield f"Body, `{kind}`, for example:\n\n```json\n{text}\n```\n"
        else:
            yield f"Body: `{kind}`.\n"
    for status, answer in said["responses"].items():
        for kind, content in answer.get("content", {}).items():
            if not status.startswith("2"):
                continue
            if (sent := example(content, document)) is not None and kind == "application/json":
                text = json.dumps(sent, indent=1, ensure_ascii=False)
                yield f"Answer {status}, for example:\n\n```json\n{text}\n```\n"
            elif kind != "application/json":
                yield f"Answer {status}: `{kind}`.\n"


def told(parameter: Mapping[str, Any]) -> str:
    """What is known of a parameter, in words."""
    shape = parameter.get("schema", {})
    kinds = [one for one in shape.get("anyOf", [shape]) if one.get("type") != "null"]
    kind = " or ".join(str(one["type"]) for one in kinds if "type" in one)
    limits = [
        text.format(one[name])
        for one in kinds
        for name, text in (("minimum", "from {}"), ("maximum", "to {}"), ("maxLength", "up to {} characters"))
        if name in one
    ]
    default = shape.get("default")
    about = [parameter.get("description") or shape.get("description") or "", kind, *limits]
    about += [f"default {default!r}"] if default not in (None, "") else []
    return ", ".join(part for part in about if part)


def example(content: Mapping[str, Any], document: Mapping[str, Any]) -> Any:
    """An example of a body, its own or its schema's; None where there is none."""
    if "example" in content:
        return content["example"]
    for one in content.get("examples", {}).values():
        return one.get("value")
    shape = content.get("schema", {})
    if "$ref" in shape:
        shape = document["components"]["schemas"][shape["$ref"].rpartition("/")[2]]
    return shape.get("example") or next(iter(shape.get("examples", ())), None)


def main() -> int:
    """Write the page, or compare it."""
    text = page()
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.exists() and PAGE.read_text() == text else 1
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
