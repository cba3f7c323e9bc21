"""Write docs/api.md from the docstrings: python scripts/make_api_docs.py [--check]

The source is read, not imported, so the page does not depend on what is installed. With --check nothing is
written; the exit status is 1 if the page is not current or a public name has no docstring.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "pictura"
PAGE = ROOT / "docs" / "api.md"
# The order of the page: what everyone uses first. Modules that are not there yet are passed over.
MODULES = (
    "",
    "task",
    "learning",
    "request",
    "picture",
    "picture.metadata",
    "picture.files",
    "errors",
    "presets",
    "samplers",
    "samplers.schedules",
    "guidance",
    "levels",
    "engine",
    "families",
    "providers",
    "device",
    "formats.preset",
    "formats.safetensors",
    "formats.hub",
    "datasets.scenes.grammar",
    "datasets.scenes.render",
    "datasets.scenes.stream",
    "datasets.scenes.write",
    "training.recipe",
    "training.trainer",
    "training.data",
    "batch",
    "batch.running",
    "batch.work",
    "batch.filters",
    "batch.outputs",
    "evaluation",
    "evaluation.run",
    "evaluation.report",
    "evaluation.composition",
)
HEAD = """# API reference

<!-- Written by scripts/make_api_docs.py from the docstrings; do not edit. -->

`pictura` itself offers the names that most programs need; they are described under the modules they live in.
"""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD]
    for name in MODULES:
        if path := source(name):
            parts += module(name, ast.parse(path.read_text(encoding="utf-8")))
    return "\n".join(parts)


def undocumented() -> list[str]:
    """Every public module, class, function and method on the page that has no docstring."""
    missing = []
    for name in MODULES:
        if path := source(name):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found = list(symbols(tree))
            # A method that does what a documented one of another class says needs no second text.
            told = {own.partition(".")[2] for own, node in found if ast.get_docstring(node)}
            bare = [own for own, node in found if not ast.get_docstring(node)]
            missing += [f"{full(name)}.{own}" for own in bare if own.partition(".")[2] not in told - {""}]
            missing += [] if ast.get_docstring(tree) else [full(name)]
    return missing


def source(name: str) -> Path | None:
    """The file of a module, None if there is none."""
    stem = SOURCE.joinpath(*name.split(".")) if name else SOURCE
    return next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()), None)


def full(name: str) -> str:
    """The name that an import takes."""
    return f"pictura.{name}" if name else "pictura"


def module(name: str, tree: ast.Module) -> Iterator[str]:
    """One module: its docstring, then its public names."""
    yield f"## {full(name)}\n"
    yield text(tree)
    for own, node in symbols(tree):
        level = "###" if "." not in own else "####"
        yield f"{level} `{own}`\n"
        yield f"```python\n{signature(node)}\n```\n"
        if told := text(node).strip():
            yield told + "\n"


def symbols(tree: ast.Module) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """The public functions and classes of a module, and after each class its public methods."""
    chosen = exported(tree)
    for node in tree.body:
        if isinstance(node, (Function, ast.ClassDef)) and public(node.name, chosen):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, Function) and public(inner.name, None) and not overload(inner):
                        yield f"{node.name}.{inner.name}", inner


def exported(tree: ast.Module) -> set[str] | None:
    """What `__all__` names, None without one that is spelt out."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            try:
                return set(ast.literal_eval(node.value))
            except ValueError:
                return None
    return None


def public(name: str, chosen: set[str] | None) -> bool:
    """Whether a name is meant for others."""
    return not name.startswith("_") and (chosen is None or name in chosen)


def overload(node: Function) -> bool:
    """Whether a function only declares one way of calling the real one."""
    return any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list)


def signature(node: Function | ast.ClassDef) -> str:
    """How it is called: decorators that matter, name, parameters; for a class its bases and fields."""
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        fields = [line for line in node.body if isinstance(line, ast.AnnAssign) and public_field(line)]
        head = f"class {node.name}" + (f"({bases})" if bases else "")
        return "\n".join([head, *(f"    {ast.unparse(line)}" for line in fields)])
    kinds = {"classmethod", "staticmethod", "property", "contextmanager"}
    marks = [f"@{name}" for d in node.decorator_list if (name := ast.unparse(d)) in kinds]
    start = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"{start} {node.name}({ast.unparse(node.args)}){result}"
    return "\n".join([*marks, line if len(line) <= 100 else wrapped(node, start, result)])


def wrapped(node: Function, start: str, result: str) -> str:
    """A long signature, one parameter a line."""
    bare = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    given = node.args
    lines: list[str] = []
    plain = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(plain) - len(given.defaults)) + list(given.defaults)
    for argument, default in zip(plain, defaults, strict=True):
        bare.args, bare.defaults = [argument], [default] if default else []
        lines.append(ast.unparse(bare))
    if given.vararg:
        lines.append(f"*{ast.unparse(given.vararg)}")
    elif given.kwonlyargs:
        lines.append("*")
    for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        bare.args, bare.defaults = [argument], [default] if default else []
        lines.append(ast.unparse(bare))
    if given.kwarg:
        lines.append(f"**{ast.unparse(given.kwarg)}")
    inner = "".join(f"    {line},\n" for line in lines)
    return f"{start} {node.name}(\n{inner}){result}"


def public_field(line: ast.AnnAssign) -> bool:
    """Whether a field of a class is meant for others."""
    return isinstance(line.target, ast.Name) and not line.target.id.startswith("_")


def text(node: ast.Module | Function | ast.ClassDef) -> str:
    """A docstring as Markdown: indented blocks are code already, the rest is prose."""
    return inspect.cleandoc(ast.get_docstring(node) or "") + "\n"


def main() -> int:
    """Write the page, or compare it."""
    missing = undocumented()
    for name in missing:
        print(f"{name} has no docstring", file=sys.stderr)
    content = page()
    if "--check" in sys.argv[1:]:
        return 1 if missing or not PAGE.exists() or PAGE.read_text() != content else 0
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
