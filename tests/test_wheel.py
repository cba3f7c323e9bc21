"""The wheel has everything the package needs, and works where nothing of this folder is at hand."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import pictura

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "pictura"


def run(*command: str | Path, cwd: Path) -> str:
    """Its output; the environment is bare, so that nothing but the command decides what is imported."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**kept, "HOME": str(cwd)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (found,) = out.glob("*.whl")
    return found


def test_everything_is_inside(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    for path in SOURCE.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert f"pictura/{path.relative_to(SOURCE).as_posix()}" in inside
    for name in (
        "py.typed",
        "datasets/scenes/vocabulary.tsv",
        "datasets/scenes/sprites.png",
        "families/scenes/weights/model.safetensors",
    ):
        assert f"pictura/{name}" in inside
    outside = {name for name in inside if not name.startswith(("pictura/", "pictura-"))}
    assert not outside and not any("__pycache__" in name or name.endswith(".pt") for name in inside)


def test_what_it_says_about_itself(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    info = f"pictura-{pictura.__version__}.dist-info"
    said = message_from_bytes(archive.read(f"{info}/METADATA"))
    assert (said["Name"], said["Version"], said["License-Expression"]) == (
        "pictura",
        pictura.__version__,
        "Apache-2.0",
    )
    required = said.get_all("Requires-Dist") or []
    assert not any("torch" in line for line in required if "extra ==" not in line)
    assert f"{info}/licenses/LICENSE" in archive.namelist()
    assert "pictura = pictura.cli:main" in archive.read(f"{info}/entry_points.txt").decode()


def test_it_works_elsewhere(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=tmp_path)
    python = venv / "bin" / "python"
    # Its dependencies are those of this process; a .pth line puts them last.
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=tmp_path,
    )
    where = run(python, "-c", "import pictura; print(pictura.__file__)", cwd=tmp_path)
    assert where.startswith(str(site))
    code = (
        "import pictura; print(pictura.Request.from_json(pictura.Request(prompt='a cat').to_json()).prompt)"
    )
    assert run(python, "-c", code, cwd=tmp_path).strip() == "a cat"
    order = ["generate", "a cat", "--seed", "1", "--steps", "2", "--out", "cat.png"]
    run(venv / "bin" / "pictura", *order, cwd=tmp_path)
    assert pictura.Picture.open(tmp_path / "cat.png").request.prompt == "a cat"
