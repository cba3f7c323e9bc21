"""What these tests leave as they found it."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(scope="module", autouse=True)
def root_logger():
    """distilabel has the root logger write to a queue and closes it: later records could go nowhere."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in [one for one in root.handlers if one not in handlers]:
        root.removeHandler(handler)
    root.setLevel(level)
