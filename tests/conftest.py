"""Options of the whole suite."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Record = Callable[[str, str, float], None]
FIGURES: dict[str, dict[str, dict[str, object]]] = {}  # model -> form -> what was measured


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--figures", metavar="FILE", help="write what the parity tests measure to this JSON file"
    )


@pytest.fixture(scope="session", autouse=True)
def no_history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test, nor a process that it starts, writes to the history or cache of whoever runs the suite."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PICTURA_HISTORY", "off")
        patch.setenv("PICTURA_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("PICTURA_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("PICTURA_DATABASE", raising=False)
        yield


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """record(model, form, figure): the largest relative difference that a test found; the worst is kept."""

    def keep(model: str, form: str, figure: float) -> None:
        test = request.node.nodeid.partition("[")[0]
        known = FIGURES.setdefault(model, {}).get(form)
        if known is None or figure > float(str(known["difference"])):
            FIGURES[model][form] = {"difference": figure, "test": test}

    return keep


@pytest.fixture(scope="session", autouse=True)
def figures(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    target = request.config.getoption("--figures")
    if target is not None:
        Path(target).write_text(json.dumps(FIGURES, indent=2, sort_keys=True) + "\n")
