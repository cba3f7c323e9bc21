"""Imports point down only: each line below uses nothing but lines under it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pictura

ROOT = Path(pictura.__file__).parent
LAYERS = """
__main__
cli
server
web integrations
batch
task
history
learning
watching drawing loading converting remote
inputs
checkpoints
presets
training evaluation
families providers bridge
guidance
schedulers
samplers
engine
datasets
text nn formats device
options
discovery lazy limits workers
attachments measuring columns arrow
picture
request
levels
errors
"""
RANK = {name: at for at, line in enumerate(reversed(LAYERS.split("\n"))) for name in line.split()}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def layer(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Full names of everything a file imports, anywhere in it, types included."""
    here = ("pictura", *path.relative_to(ROOT).parent.parts)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found - {"pictura.__version__"}


def used(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(path) if name.startswith("pictura.")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    own = layer(path)
    assert own in RANK, f"{own} has no place in the order of layers"
    for name in used(path) - {own}:
        assert name in RANK, f"{path} imports pictura.{name}, which is no module"
        assert RANK[name] < RANK[own], f"{own} may not import {name}"


@pytest.mark.parametrize("kind", ["families", "providers"])
def test_no_family_or_provider_knows_another(kind: str) -> None:
    known = {path.stem for path in (ROOT / kind).glob("[a-z]*")} - {"latent"}  # the base of several
    for path in (ROOT / kind).rglob("*.py"):
        own = path.relative_to(ROOT / kind).parts[0].removesuffix(".py")
        others = {f"pictura.{kind}.{name}" for name in known - {own}}
        for name in imported(path):
            assert ".".join(name.split(".")[:3]) not in others, f"{path} imports {name}"


def test_no_yield_inside_a_torch_context() -> None:
    """`with torch.no_grad(): yield` leaks the mode to whoever runs between two steps of the generator."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.With) and any(is_torch(item.context_expr) for item in node.items):
                inner = [n for line in node.body for n in ast.walk(line)]
                assert not any(isinstance(n, (ast.Yield, ast.YieldFrom)) for n in inner), (
                    f"{path}:{node.lineno}"
                )


def is_torch(expression: ast.expr) -> bool:
    return ast.unparse(expression).startswith("torch.")


def test_nothing_unpickles() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in {
                    "torch.load",
                    "pickle.load",
                    "pickle.loads",
                    "eval",
                    "exec",
                }, path
                if ast.unparse(node.func) in {"np.load", "numpy.load"}:
                    assert not any(k.arg == "allow_pickle" for k in node.keywords), path
