"""Write the tree of the package into README.md, a line a file: python scripts/make_tree.py [--check]

Each line is the first sentence of the file's docstring. With --check nothing is written; the exit status is 1
if the tree is not current.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "pictura"
PAGE = ROOT / "README.md"
BEGIN, END = "<!-- tree: written by scripts/make_tree.py -->\n", "<!-- /tree -->\n"
COLUMN = 26  # where the sentences begin


def tree() -> str:
    """The tree as a block of text."""
    return "```text\n" + "".join(line.rstrip() + "\n" for line in lines(SOURCE)) + "```\n"


def lines(folder: Path, depth: int = 0) -> Iterator[str]:
    """A folder, then what is in it: files first, folders after them."""
    start = folder / "__init__.py"
    yield entry(f"{folder.name}/", depth, sentence(start) if start.exists() else "")
    files = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
    for path in files:
        yield entry(path.name, depth + 1, sentence(path))
    for path in sorted(folder.iterdir()):
        if path.is_dir() and any(path.glob("*.py")):
            yield from lines(path, depth + 1)


def entry(name: str, depth: int, told: str) -> str:
    """One line: the name where its depth says, the sentence in its column."""
    return f"{'  ' * depth + name:{COLUMN}} {told}"


def sentence(path: Path) -> str:
    """The first sentence of a module's docstring, without brackets and the full stop."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = re.sub(r"\s*\([^)]*\)", "", " ".join(text.split("\n\n")[0].split()))
    return first.split(". ")[0].removesuffix(".").replace("`", "")


def main() -> int:
    """Put the tree between its marks in the README, or compare it."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    new = before + BEGIN + tree() + END + after
    if "--check" in sys.argv[1:]:
        return 0 if new == page else 1
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
