"""Packages of others, as an installer leaves them."""

from __future__ import annotations

from pathlib import Path


def install(site: Path, name: str, points: dict[str, dict[str, str]], version: str = "1.0") -> None:
    """In the folder `site`, beside its modules, what says that `name` has these entry points, by group."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = (
        f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in each.items())
        for group, each in points.items()
    )
    (info / "entry_points.txt").write_text("\n".join(groups))
